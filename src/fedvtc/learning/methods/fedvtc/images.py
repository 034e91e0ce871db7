"""Draws generated images: latents from Gaussians in feature space, decoded by generators.

Shapes: K Gaussians, G generators, N images, D features.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Payload
from fedvtc.learning.methods.fedvtc.latents import LatentSampler

CHUNK = 500
"""Latents decoded at a time, so that their maps fit a cache."""


class ImageSource:
    """Draws images of given labels.

    Args:
        sampler: draws latents, each with the row of its Gaussian.
        decoder: the generator's network.
        weights_G: weights that replace those of the decoder; empty keeps the decoder's weights.
        generator_K: index into `weights_G` for each Gaussian of the sampler.
    """

    def __init__(
        self,
        sampler: LatentSampler,
        decoder: nn.Module,
        weights_G: Sequence[Mapping[str, Tensor]] = (),
        generator_K: Tensor | None = None,
    ) -> None:
        self._sampler, self._decoder, self._weights_G, self._generator_K = sampler, decoder, weights_G, generator_K

    @classmethod
    def of(cls, payload: Payload, decoder: nn.Module, num_classes: int, device: torch.device) -> "ImageSource":
        """Builds the source of a broadcast.

        Args:
            payload: `prototypes` and `covariance` of the server, or instead `mixture`, the clients' own Gaussians;
                with `generators`, each client's latents are decoded by that client's generator.
            decoder: decoder of the client that draws; used with its own weights if there are no `generators`.
            num_classes: classes C.
            device: device of the images.
        """
        mixture = payload.get("mixture")
        if mixture is None:
            gaussians = ClassGaussians.from_arrays(payload["prototypes"], payload["covariance"])
            return cls(LatentSampler(gaussians, num_classes=num_classes, device=device), decoder)
        gaussians = ClassGaussians.from_arrays(mixture, mixture)
        sampler = LatentSampler(gaussians, num_classes=num_classes, device=device)
        if "generators" not in payload:
            return cls(sampler, decoder)
        stacks = {name: torch.tensor(array, device=device) for name, array in payload["generators"].items()}
        weights_G = [dict(zip(stacks, tensors, strict=True)) for tensors in zip(*stacks.values(), strict=True)]
        return cls(sampler, decoder, weights_G, torch.tensor(mixture["owner"], device=device))

    @property
    def classes(self) -> list[int]:
        """Classes that can be drawn, ascending."""
        return self._sampler.classes

    @torch.no_grad()
    def draw(self, num_per_class: int) -> tuple[Tensor, Tensor]:
        """Draws images (N, channels, side, side) in [-1, 1] and labels (N,), the same number of each class."""
        device = self._sampler.device
        labels_N = torch.tensor(self.classes, device=device).repeat_interleave(num_per_class)
        latents_ND, row_N = self._sampler.draw(labels_N)
        self._decoder.eval()
        if self._generator_K is None:
            return torch.cat([self._decoder(chunk) for chunk in latents_ND.split(CHUNK)]), labels_N
        generator_N = self._generator_K[row_N]
        # Latents are grouped by generator and decoded; the images return to the order of the labels.
        order_N = generator_N.argsort(stable=True)
        sizes = generator_N.bincount(minlength=len(self._weights_G)).tolist()
        decoded = [
            functional_call(self._decoder, dict(weights), (chunk,))
            for weights, group in zip(self._weights_G, latents_ND[order_N].split(sizes), strict=True)
            for chunk in group.split(CHUNK)
            if len(chunk)
        ]
        return torch.cat(decoded)[order_N.argsort()], labels_N
