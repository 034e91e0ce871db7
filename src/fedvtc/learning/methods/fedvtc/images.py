"""Where generated images come from: Gaussians in feature space, and the generators that decode what is drawn from them.

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
"""Latents decoded at a time: the maps of more would not fit a cache."""


class ImageSource:
    """Draws images of given labels.

    Args:
        sampler: draws latents, and says from which of its Gaussians each one is.
        decoder: the generator's network, with weights of its own.
        weights_G: weights to decode with in place of the decoder's own; empty for its own.
        generator_K: for each Gaussian of the sampler, which of `weights_G` decodes its latents.
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
        """The source that a broadcast describes.

        Args:
            payload: `prototypes` and `covariance` of the server; with `mixture`, the clients' own Gaussians instead;
                with `generators`, each client's latents are decoded by its own generator.
            decoder: of the client that draws; its weights are used where no others came.
            num_classes: C.
            device: where images are drawn.
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
        """The classes there are images of, ascending."""
        return self._sampler.classes

    @torch.no_grad()
    def draw(self, num_per_class: int) -> tuple[Tensor, Tensor]:
        """Images (N, channels, side, side) in [-1, 1] and their labels (N,), the same number of each class."""
        device = self._sampler.device
        labels_N = torch.tensor(self.classes, device=device).repeat_interleave(num_per_class)
        latents_ND, row_N = self._sampler.draw(labels_N)
        self._decoder.eval()
        if self._generator_K is None:
            return torch.cat([self._decoder(chunk) for chunk in latents_ND.split(CHUNK)]), labels_N
        generator_N = self._generator_K[row_N]
        # Grouped by generator, decoded group by group, and put back in the order of the labels.
        order_N = generator_N.argsort(stable=True)
        sizes = generator_N.bincount(minlength=len(self._weights_G)).tolist()
        decoded = [
            functional_call(self._decoder, dict(weights), (chunk,))
            for weights, group in zip(self._weights_G, latents_ND[order_N].split(sizes), strict=True)
            for chunk in group.split(CHUNK)
            if len(chunk)
        ]
        return torch.cat(decoded)[order_N.argsort()], labels_N
