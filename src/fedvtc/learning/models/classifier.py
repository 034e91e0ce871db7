"""A client's model f = h . g as a LightningModule: a backbone g of any architecture and a linear head h.

Shapes: B images, D features, C classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.models.backbones import build_backbone
from fedvtc.learning.models.optimizers import build_optimizer

Batch = tuple[Tensor, Tensor]


class ClassifierModule(LightningModule):
    """A classifier with a cross-entropy loss and, if prototypes are set, a pull of features towards the prototypes.

    loss = CE(h(g(x)), y) + lambda * mean_j (g(x)_j - c_j^y)^2 / sigma_j^2, per image, mean over the batch; images of a
    class without a prototype have no second term. (Our reading of the paper's local objective; with sigma = 1 the term
    is the regulariser of FedProto, Tan et al. 2022.)

    Args:
        backbone: images (B, channels, side, side) to features (B, D).
        feature_size: features D.
        num_classes: classes C.
        optimizer: settings for `configure_optimizers`.
    """

    def __init__(self, backbone: nn.Module, *, feature_size: int, num_classes: int, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(feature_size, num_classes)
        self._optimizer = optimizer
        self._prototypes: tuple[Tensor, Tensor, Tensor] | None = None
        self._prototype_weight = 0.0
        self._shared: tuple[Tensor, Tensor] | tuple[()] | None = None

    def set_prototypes(self, mean_CD: Tensor, std_CD: Tensor, held_C: Tensor, *, weight: float) -> None:
        """Pulls features towards class means from the next step on; not part of the module's state.

        Args:
            mean_CD: prototypes.
            std_CD: standard deviations, the unit of distance.
            held_C: True for each class that has a prototype.
            weight: weight lambda of the pull; 0 leaves the term out.
        """
        self._prototypes, self._prototype_weight = (mean_CD, std_CD, held_C), weight

    def clear_prototypes(self) -> None:
        """Ends the pull towards prototypes."""
        self._prototypes = None

    def features(self, images: Tensor) -> Tensor:
        """Maps images (B, channels, side, side) to features (B, D) by the backbone g."""
        if self._shared is None:
            features: Tensor = self.backbone(images)
            return features
        if self._shared and self._shared[0] is images:
            return self._shared[1]
        self._shared = (images, self.backbone(images))
        return self._shared[1]

    @contextmanager
    def shared_features(self) -> Iterator[None]:
        """Computes the features of a tensor once for all calls in a row, such as those of several predictors.

        In the block, weights must not change, and callers must not write into images or features.
        """
        self._shared = ()
        try:
            yield
        finally:
            self._shared = None

    def forward(self, images: Tensor) -> Tensor:
        """Maps images to logits (B, C)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def loss_terms(self, images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Returns the whole `loss` and its terms: `classification` and, with prototypes, `prototype` (unweighted)."""
        return self.loss_terms_of(self.features(images), labels_B)

    def loss_terms_of(self, features_BD: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Returns the terms of `loss_terms` for features that are computed already."""
        classification = functional.cross_entropy(self.head(features_BD), labels_B)
        if self._prototypes is None or self._prototype_weight == 0.0:
            return {"loss": classification, "classification": classification}
        prototype = prototype_distance(features_BD, labels_B, *self._prototypes)
        return {
            "loss": classification + self._prototype_weight * prototype,
            "classification": classification,
            "prototype": prototype,
        }

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss terms of one batch of images and labels."""
        return self.loss_terms(*batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the loss terms under `lightning.Trainer`; a federation records the terms in a loop of its own."""
        self.log_dict({f"loss/{name}": value for name, value in outputs.items()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs cross-entropy and accuracy of one test batch."""
        images, labels_B = batch
        logits_BC = self(images)
        accuracy = (logits_BC.argmax(dim=1) == labels_B).float().mean()
        self.log_dict({"test/loss": functional.cross_entropy(logits_BC, labels_B), "test/accuracy": accuracy})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the configured optimizer over all weights."""
        return build_optimizer(self.parameters(), self._optimizer)


def prototype_distance(
    features_BD: Tensor, labels_B: Tensor, mean_CD: Tensor, std_CD: Tensor, held_C: Tensor
) -> Tensor:
    """Returns the distance of features to prototypes: the batch mean of mean_j (g_j - c_j)^2 / sigma_j^2.

    The prototype is that of the image's class. An image of a class without a prototype counts 0.
    """
    distance_B = ((features_BD - mean_CD[labels_B]) / std_CD[labels_B]).square().mean(dim=1)
    return (distance_B * held_C[labels_B]).mean()


def nearest_prototype(features_BD: Tensor, mean_CD: Tensor, allowed_C: Tensor) -> Tensor:
    """Returns scores (B, C) whose highest is the nearest prototype: -mean_j (g_j - c_j)^2.

    A class that is not allowed scores minus infinity.
    """
    distance_BC = (features_BD[:, None] - mean_CD).square().mean(dim=2)
    return (-distance_BC).masked_fill(~allowed_C, -torch.inf)


def build_classifier(
    backbone: str,
    *,
    num_channels: int,
    image_size: int,
    feature_size: int,
    num_classes: int,
    optimizer: OptimizerConfig,
) -> ClassifierModule:
    """Builds a classifier with new weights, drawn from PyTorch's global generator.

    Args:
        backbone: name of the backbone.
        num_channels: channels of the images.
        image_size: side of the images in pixels.
        feature_size: features D.
        num_classes: classes C.
        optimizer: settings for `configure_optimizers`.
    """
    built = build_backbone(backbone, num_channels=num_channels, image_size=image_size, feature_size=feature_size)
    classifier = ClassifierModule(built, feature_size=feature_size, num_classes=num_classes, optimizer=optimizer)
    # In this layout a backbone takes half the time on CPUs; a decoder of few channels and many norms takes more.
    return classifier.to(memory_format=torch.channels_last)
