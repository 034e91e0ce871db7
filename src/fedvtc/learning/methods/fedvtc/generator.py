"""The variational transposed-convolution generator psi, from latents in R^D to images, as a LightningModule.

Shapes: B images, D features, C classes, M latents per class.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods.fedvtc.config import GeneratorConfig
from fedvtc.learning.models.classifier import ClassifierModule
from fedvtc.learning.models.decoder import build_decoder
from fedvtc.learning.models.latents import LatentSampler
from fedvtc.learning.models.optimizers import build_optimizer

if TYPE_CHECKING:
    from fedvtc.learning.methods.base import Task

Batch = tuple[Tensor, Tensor, Tensor]


def reconstruction_error(decoded: Tensor, images: Tensor) -> Tensor:
    """Returns L_rc, the squared error summed over pixels, as the mean over the batch."""
    return (decoded - images).square().flatten(1).sum(dim=1).mean()


@dataclass(frozen=True)
class GlobalTarget:
    """Global class Gaussians, for the terms of the loss beyond reconstruction.

    Attributes:
        mean_CD: prototypes c^y.
        std_CD: spread sigma.
        held_C: True for each class that has a prototype.
        sampler: draws latents from the global Gaussians.
        matched_K: classes of the distribution-matching term.
    """

    mean_CD: Tensor
    std_CD: Tensor
    held_C: Tensor
    sampler: LatentSampler
    matched_K: Tensor


@dataclass(frozen=True)
class GeneratorTarget:
    """Targets of a client's generator in one round.

    Attributes:
        classifier: the client's model; frozen and in eval mode while the generator trains.
        local_std_CD: spread sigma_k of the client's own features.
        server: global targets; None before the first aggregation: reconstruction is then the only term.
    """

    classifier: ClassifierModule
    local_std_CD: Tensor
    server: GlobalTarget | None = None

    @classmethod
    def of(
        cls,
        classifier: ClassifierModule,
        local: ClassGaussians,
        anchors: ClassGaussians | None,
        matched_K: NDArray[np.int64],
        *,
        num_classes: int,
    ) -> "GeneratorTarget":
        """Builds the target from a client's Gaussians and, if any, the server's, on the classifier's device."""
        device = classifier.device
        local_std_CD = torch.tensor(local.dense(num_classes)[1], device=device)
        if anchors is None:
            return cls(classifier, local_std_CD)
        mean_CD, std_CD, held_C = (torch.tensor(array, device=device) for array in anchors.dense(num_classes))
        sampler = LatentSampler(anchors, num_classes=num_classes, device=device)
        matched = torch.tensor(matched_K, device=device)
        return cls(classifier, local_std_CD, GlobalTarget(mean_CD, std_CD, held_C, sampler, matched))


class VTCModule(LightningModule):
    """A decoder trained on L_e = L_rc + beta * D_KL + gamma * L_DM (the paper's generator objective).

    The decoder starts from a map of 4 to 8 pixels a side, doubles the side by transposed convolutions until the map
    covers the image, and crops the map. The norm is GroupNorm, because running statistics of BatchNorm cannot be
    averaged under label skew.

    Args:
        feature_size: size D of a latent.
        num_channels: channels of the images, 1 or 3.
        image_size: side of the images in pixels.
        width: channels of the last map before the image; each coarser map has twice as many, up to four times.
        beta: weight of the KL divergence.
        gamma: weight of distribution matching.
        matching_samples: latents M per class and step in the matching term.
        learn_sigma: True learns a factor per feature on the measured spread sigma_k, the noise added to features.
        optimizer: settings for `configure_optimizers`.
    """

    def __init__(
        self,
        *,
        feature_size: int,
        num_channels: int,
        image_size: int,
        width: int = 32,
        beta: float = 1.0,
        gamma: float = 1.0,
        matching_samples: int = 4,
        learn_sigma: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        super().__init__()
        self.beta, self.gamma, self.matching_samples = beta, gamma, matching_samples
        self.decoder = build_decoder(feature_size, num_channels, image_size, width)
        self.log_factor_D = nn.Parameter(torch.zeros(feature_size)) if learn_sigma else None
        self._optimizer = optimizer or OptimizerConfig()
        # In a list, because PyTorch would make the classifier a submodule of the generator otherwise.
        self._target: list[GeneratorTarget] = []

    @classmethod
    def of(cls, config: GeneratorConfig, task: "Task") -> Self:
        """Builds a generator with new weights, drawn from PyTorch's global generator."""
        return cls(
            feature_size=task.feature_size,
            num_channels=task.num_channels,
            image_size=task.image_size,
            width=config.width,
            beta=config.beta,
            gamma=config.gamma,
            matching_samples=config.dm_samples,
            learn_sigma=config.sigma == "learned",
            optimizer=config.optimizer,
        )

    def set_target(self, target: GeneratorTarget) -> None:
        """Sets the targets of `training_step`; not part of the module's state."""
        self._target = [target]

    def forward(self, latents_BD: Tensor) -> Tensor:
        """Maps latents to images (B, channels, side, side) in [-1, 1]."""
        images: Tensor = self.decoder(latents_BD)
        return images

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss terms of one batch of images, labels and features g_k(x) of the frozen classifier."""
        images, labels_B, features_BD = batch
        (target,) = self._target
        local_std_BD = target.local_std_CD[labels_B]
        if self.log_factor_D is not None:
            local_std_BD = local_std_BD * self.log_factor_D.exp()
        latents_BD = features_BD + local_std_BD * torch.randn_like(features_BD)
        reconstruction = reconstruction_error(self(latents_BD), images)
        terms = {"reconstruction": reconstruction}
        loss = reconstruction
        if target.server is not None:
            server = target.server
            kl_B = kl_divergence(features_BD, local_std_BD, server.mean_CD[labels_B], server.std_CD[labels_B])
            terms["kl"] = (kl_B * server.held_C[labels_B]).mean()
            loss = loss + self.beta * terms["kl"]
            if self.gamma > 0.0 and len(server.matched_K):
                terms["distribution_matching"] = self._matching(target.classifier, server)
                loss = loss + self.gamma * terms["distribution_matching"]
        return {"loss": loss, **terms}

    def _matching(self, classifier: ClassifierModule, server: GlobalTarget) -> Tensor:
        """L_DM = sum_i || mean_{v in V_i} g_k(psi(v)) - c^i ||^2 with V_i from class i's global Gaussian."""
        num_drawn = self.matching_samples
        latents_ND, _ = server.sampler.draw(server.matched_K.repeat_interleave(num_drawn))
        features_ND = classifier.features(self(latents_ND))
        mean_KD = features_ND.unflatten(0, (-1, num_drawn)).mean(dim=1)
        distance: Tensor = (mean_KD - server.mean_CD[server.matched_K]).square().sum()
        return distance

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the loss terms under `lightning.Trainer`; a federation records the terms in a loop of its own."""
        self.log_dict({f"loss/{name}": value for name, value in outputs.items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the configured optimizer over the decoder and, if learned, log sigma_k."""
        return build_optimizer(self.parameters(), self._optimizer)


def kl_divergence(mean_BD: Tensor, std_BD: Tensor, prior_mean_BD: Tensor, prior_std_BD: Tensor) -> Tensor:
    """Computes KL( N(mean, std^2) || N(prior_mean, prior_std^2) ) of diagonal Gaussians, summed over features: (B,)."""
    variance_ratio = (std_BD / prior_std_BD).square()
    shift = ((mean_BD - prior_mean_BD) / prior_std_BD).square()
    return 0.5 * (variance_ratio + shift - 1.0 - variance_ratio.log()).sum(dim=1)
