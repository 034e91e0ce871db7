"""A conditional variational autoencoder: an encoder, and a decoder from latents and labels to images.

The encoder mirrors the decoder, so both have the same maps. Norms are GroupNorms, because running statistics of
BatchNorm cannot be averaged under label skew.
Source: K. Sohn, H. Lee, X. Yan, "Learning Structured Output Representation using Deep Conditional Generative Models",
NeurIPS 2015.

Shapes: B images, S pixels a side, L entries of a latent, C classes.
"""

from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.models.decoder import decoder_layers, map_plan, norm
from fedvtc.learning.models.optimizers import build_optimizer

Batch = tuple[Tensor, Tensor]


class LabelDecoder(nn.Module):
    """A decoder of latents and labels: the label, as a row of zeros with a one, stands beside the latent.

    Args:
        latent_size: entries L of a latent.
        num_classes: classes C.
        num_channels: channels of the images, 1 or 3.
        image_size: side S of the images in pixels.
        width: channels of the last map before the image; each coarser map has twice as many, up to four times.
    """

    def __init__(self, latent_size: int, num_classes: int, num_channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.latent_size, self.num_classes = latent_size, num_classes
        self.layers = nn.Sequential(*decoder_layers(latent_size + num_classes, num_channels, image_size, width))

    def outputs(self, latents_BL: Tensor, labels_B: Tensor) -> Tensor:
        """Returns the numbers whose tanh are the images."""
        outputs: Tensor = self.layers(torch.cat([latents_BL, _one_hot(labels_B, self.num_classes)], dim=1))
        return outputs

    def forward(self, latents_BL: Tensor, labels_B: Tensor) -> Tensor:
        """Maps latents and labels to images (B, channels, S, S) in [-1, 1]."""
        return self.outputs(latents_BL, labels_B).tanh()


class LabelEncoder(nn.Module):
    """An encoder of images, which may see the label as C further channels of ones and zeros.

    Args:
        latent_size: entries L of a latent.
        num_labels: classes C; 0 hides the label.
        num_channels: channels of the images, 1 or 3.
        image_size: side S of the images in pixels.
        width: channels of the first map; each coarser map has twice as many, up to four times.
    """

    def __init__(self, latent_size: int, num_labels: int, num_channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        map_size, channels = map_plan(image_size, width)
        margin = map_size * 2 ** len(channels) - image_size
        layers: list[nn.Module] = [nn.ZeroPad2d((0, margin, 0, margin))] if margin else []
        num_in = num_channels + num_labels
        for num_out in reversed(channels):
            layers += [nn.Conv2d(num_in, num_out, kernel_size=4, stride=2, padding=1), norm(num_out), nn.ReLU()]
            num_in = num_out
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(num_in * map_size**2, 2 * latent_size))

    def forward(self, images: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the means and the logarithms of the variances of the latents, each (B, L)."""
        if self.num_labels:
            labels_BC11 = _one_hot(labels_B, self.num_labels)[:, :, None, None]
            images = torch.cat([images, labels_BC11.expand(-1, -1, *images.shape[2:])], dim=1)
        mean_BL, log_variance_BL = self.layers(images).chunk(2, dim=1)
        return mean_BL, log_variance_BL


class ConditionalVAE(LightningModule):
    """An encoder and a `LabelDecoder`, trained on reconstruction + beta * KL( N(mean, variance) || N(0, I) ).

    Args:
        latent_size: entries L of a latent.
        num_classes: classes C.
        num_channels: channels of the images, 1 or 3.
        image_size: side S of the images in pixels.
        width: channels of the widest map.
        label_in_encoder: True shows the label to the encoder too.
        reconstruction: `squared`: squared error of images in [-1, 1]. `cross_entropy`: pixels in [0, 1] are
            probabilities. `squared_sigmoid`: squared error of pixels in [0, 1]. Each is summed over pixels.
        beta: weight of the KL divergence.
        optimizer: settings for `configure_optimizers`.
    """

    def __init__(
        self,
        *,
        latent_size: int,
        num_classes: int,
        num_channels: int,
        image_size: int,
        width: int = 32,
        label_in_encoder: bool = True,
        reconstruction: Literal["squared", "cross_entropy", "squared_sigmoid"] = "squared",
        beta: float = 1.0,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        super().__init__()
        self.reconstruction, self.beta = reconstruction, beta
        shape = (num_channels, image_size, width)
        self.encoder = LabelEncoder(latent_size, num_classes if label_in_encoder else 0, *shape)
        self.decoder = LabelDecoder(latent_size, num_classes, *shape)
        self._optimizer = optimizer or OptimizerConfig()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss terms of one batch of images in [-1, 1] and labels, as means over the batch."""
        images, labels_B = batch
        mean_BL, log_variance_BL = self.encoder(images, labels_B)
        latents_BL = mean_BL + (0.5 * log_variance_BL).exp() * torch.randn_like(mean_BL)
        outputs = self.decoder.outputs(latents_BL, labels_B)
        reconstruction = reconstruction_error(outputs, images, self.reconstruction)
        kl = kl_to_standard_normal(mean_BL, log_variance_BL)
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the loss terms under `lightning.Trainer`; a federation records the terms in a loop of its own."""
        self.log_dict({f"loss/{name}": value for name, value in outputs.items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the configured optimizer over encoder and decoder."""
        return build_optimizer(self.parameters(), self._optimizer)


def reconstruction_error(outputs: Tensor, images: Tensor, kind: str) -> Tensor:
    """Returns the error of images in [-1, 1], summed over pixels, mean over the batch.

    Args:
        outputs: numbers whose tanh are the reconstructed images.
        images: real images in [-1, 1].
        kind: `reconstruction` of `ConditionalVAE`.
    """
    if kind == "cross_entropy":
        # A pixel in [0, 1] is (tanh(v) + 1) / 2 = sigmoid(2 v), so 2 v is the logit.
        summed = functional.binary_cross_entropy_with_logits(2.0 * outputs, (images + 1.0) / 2.0, reduction="sum")
    else:
        summed = (outputs.tanh() - images).square().sum()
        if kind == "squared_sigmoid":
            # Pixels in [0, 1] are half as far apart as in [-1, 1].
            summed = summed / 4.0
    return summed / len(images)


def kl_to_standard_normal(mean_BL: Tensor, log_variance_BL: Tensor) -> Tensor:
    """Returns KL( N(mean, variance) || N(0, I) ) of diagonal Gaussians, summed over entries, mean over the batch."""
    return 0.5 * (mean_BL.square() + log_variance_BL.exp() - 1.0 - log_variance_BL).sum(dim=1).mean()


def truncated_normal(num_latents: int, latent_size: int, *, bound: float, device: torch.device) -> Tensor:
    """Draws latents (B, L) from N(0, I) truncated to [-bound, bound], by PyTorch's global generator."""
    return nn.init.trunc_normal_(torch.empty(num_latents, latent_size, device=device), a=-bound, b=bound)


def _one_hot(labels_B: Tensor, num_classes: int) -> Tensor:
    return functional.one_hot(labels_B, num_classes).float()
