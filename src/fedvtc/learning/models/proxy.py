"""A client's private classifier and its proxy, a small model of one architecture on all clients, as one module.

Shapes: B images, D features, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from lightning import LightningModule
from torch import Tensor, nn

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.models.classifier import Batch, ClassifierModule
from fedvtc.learning.models.optimizers import build_optimizer


@dataclass(frozen=True)
class PairOutputs:
    """Features and logits of a private model and its proxy for the same images."""

    features_BD: Tensor
    logits_BC: Tensor
    proxy_features_BD: Tensor
    proxy_logits_BC: Tensor


class Pair(LightningModule):
    """A private classifier and a proxy that take each training step together.

    One optimizer has two groups of weights: the classifier's, and the proxy's with those of the projection. A step adds
    the losses of both; the step detaches the outputs of the model that teaches, so that each loss trains one group.

    The weights of the classifier are not in the state of the pair, because a client saves its classifier already.

    Args:
        classifier: the client's model.
        proxy: the small model.
        step: computes the loss terms from the pair, images and labels.
        optimizer: settings for `configure_optimizers`.
        projection: a map between the features of both; trained and saved with the proxy.
    """

    def __init__(
        self,
        classifier: ClassifierModule,
        proxy: ClassifierModule,
        step: "Step",
        *,
        optimizer: OptimizerConfig,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        # In a list, because PyTorch would make the classifier a submodule of the pair otherwise.
        self._classifier = [classifier]
        self.proxy = proxy
        self.projection = projection
        self._step, self._optimizer = step, optimizer

    @property
    def classifier(self) -> ClassifierModule:
        """The client's model."""
        return self._classifier[0]

    def train(self, mode: bool = True) -> "Pair":
        """Sets the mode of both models."""
        self.classifier.train(mode)
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> PairOutputs:
        """Maps images to the features and logits of both models."""
        features_BD, proxy_features_BD = self.features(images)
        logits_BC, proxy_logits_BC = self.classifier.head(features_BD), self.proxy.head(proxy_features_BD)
        return PairOutputs(features_BD, logits_BC, proxy_features_BD, proxy_logits_BC)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images to the features of the classifier and of the proxy."""
        return self.classifier.features(images), self.proxy.features(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Mapping[str, Tensor]:
        """Returns the loss terms of one batch of images and labels."""
        return self._step(self, *batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the configured optimizer over both groups of weights."""
        groups = [{"params": list(self.classifier.parameters())}, {"params": list(self.parameters())}]
        return build_optimizer(groups, self._optimizer)


Step = Callable[[Pair, Tensor, Tensor], Mapping[str, Tensor]]
