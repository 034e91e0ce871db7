"""Joint training of a classifier and a generator: the backbone learns features that also reconstruct the image.

Cross-entropy alone makes the features of a class fall together, and no generator can draw the differences that the
features have lost. Here the gradient of the reconstruction enters the backbone. (Our addition.)

Shapes: B images, D features.
"""

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from fedvtc.learning.methods.fedvtc.generator import VTCModule, reconstruction_error
from fedvtc.learning.models.classifier import ClassifierModule

Batch = tuple[Tensor, Tensor]


class JointModule(LightningModule):
    """A classifier f = h . g and a generator psi with one loss.

    loss = CE(h(g(x)), y) + lambda * mean_j (g(x)_j - c_j^y)^2 / sigma_j^2 + mu * || psi(g(x) + s * eps) - x ||^2

    eps is drawn from N(0, I). The squared error is summed over pixels, and all terms are means over the batch. The
    first two terms are the classifier's own loss; the second needs prototypes.

    Args:
        classifier: the client's model.
        generator: the client's generator.
        reconstruction_weight: weight mu.
        noise: standard deviation s.
    """

    def __init__(
        self, classifier: ClassifierModule, generator: VTCModule, *, reconstruction_weight: float, noise: float
    ) -> None:
        super().__init__()
        self.classifier, self.generator = classifier, generator
        self.reconstruction_weight, self.noise = reconstruction_weight, noise

    def loss_terms(self, images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Returns the whole `loss`, the terms of the classifier, and `reconstruction` (unweighted)."""
        features_BD = self.classifier.features(images)
        terms = self.classifier.loss_terms_of(features_BD, labels_B)
        decoded = self.generator(features_BD + self.noise * torch.randn_like(features_BD))
        reconstruction = reconstruction_error(decoded, images)
        loss = terms["loss"] + self.reconstruction_weight * reconstruction
        return {**terms, "loss": loss, "reconstruction": reconstruction}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss terms of one batch of images and labels."""
        return self.loss_terms(*batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the loss terms under `lightning.Trainer`; a federation records the terms in a loop of its own."""
        self.log_dict({f"loss/{name}": value for name, value in outputs.items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds one optimizer of two groups, with the learning rates of the two modules."""
        optimizer, other = self.generator.configure_optimizers(), self.classifier.configure_optimizers()
        for group in other.param_groups:
            optimizer.add_param_group(group)
        return optimizer
