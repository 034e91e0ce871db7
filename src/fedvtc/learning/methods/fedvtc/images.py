"""Draws generated images: latents from Gaussians in feature space, decoded by generators.

Shapes: K Gaussians, G generators, N images, M of the N images, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Payload
from fedvtc.learning.methods.fedvtc.wire import received
from fedvtc.learning.models.latents import LatentSampler

CHUNK = 500
"""Latents decoded at a time, so that their maps fit a cache."""
WINDOW_BYTES = 2**26
"""Largest size of the float images that fine-tuning makes at once, and of a pool whose images are kept."""


@dataclass(frozen=True)
class LazyImages:
    """Images that are made when they are asked for, because all images of an epoch may exceed the memory.

    Attributes:
        labels_N: class of each image.
        images: returns the images (M, channels, side, side) of M indices, ascending after `then`; draws no random
            numbers.
    """

    labels_N: Tensor
    images: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.labels_N)

    def all(self) -> Tensor:
        """Returns all images."""
        return self.images(torch.arange(len(self), device=self.labels_N.device))

    def kept(self) -> "LazyImages":
        """Makes all images now and returns the same images, which are then kept in memory."""
        return LazyImages(self.labels_N, self.all().__getitem__)

    def select(self, index_N: Tensor) -> "LazyImages":
        """Returns the images of N indices, of which some may repeat."""
        index_N = index_N.to(self.labels_N.device)
        return LazyImages(self.labels_N[index_N], lambda index_M: self.images(index_N[index_M]))

    def then(self, other: "LazyImages") -> "LazyImages":
        """Returns these images followed by the images of `other`."""

        def images(index_M: Tensor) -> Tensor:
            own_M = index_M < len(self)
            parts = ((self, index_M[own_M]), (other, index_M[~own_M] - len(self)))
            return torch.cat([part.images(index) for part, index in parts if len(index)])

        return LazyImages(torch.cat([self.labels_N, other.labels_N]), images)


class SentGenerators(Sequence[Mapping[str, Tensor]]):
    """The weights of many generators, each converted when it is asked for: all together may exceed the memory.

    Args:
        arrays: the weights of the G generators by name, each with G as its first dimension.
        device: device of the tensors.
    """

    def __init__(self, arrays: Arrays, device: torch.device) -> None:
        self._arrays, self._device = arrays, device

    def __len__(self) -> int:
        return min(map(len, self._arrays.values()))

    def __getitem__(self, number: int) -> dict[str, Tensor]:  # type: ignore[override]  # Nothing asks for a slice.
        # A decoder computes in float32, also if its weights were sent in float16.
        return {
            name: torch.tensor(array[number], dtype=torch.float32, device=self._device)
            for name, array in self._arrays.items()
        }


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
            gaussians = ClassGaussians.from_arrays(payload["prototypes"], received(payload["covariance"]))
            return cls(LatentSampler(gaussians, num_classes=num_classes, device=device), decoder)
        mixture = received(mixture)
        gaussians = ClassGaussians.from_arrays(mixture, mixture)
        sampler = LatentSampler(gaussians, num_classes=num_classes, device=device)
        if "generators" not in payload:
            return cls(sampler, decoder)
        generators = SentGenerators(payload["generators"], device)
        return cls(sampler, decoder, generators, torch.tensor(mixture["owner"], device=device))

    @property
    def classes(self) -> list[int]:
        """Classes that can be drawn, ascending."""
        return self._sampler.classes

    def draw(self, num_per_class: int | Tensor) -> LazyImages:
        """Draws the latents of images in [-1, 1]; the images are decoded later.

        Args:
            num_per_class: images of every class, or of each class of `classes`.
        """
        device = self._sampler.device
        num = num_per_class if isinstance(num_per_class, int) else num_per_class.to(device)
        labels_N = torch.tensor(self.classes, device=device).repeat_interleave(num)
        latents_ND, row_N = self._sampler.draw(labels_N)

        @torch.no_grad()
        def images(index_M: Tensor) -> Tensor:
            return self._decoded(latents_ND[index_M], row_N[index_M])

        return LazyImages(labels_N, images)

    def _decoded(self, latents_MD: Tensor, row_M: Tensor) -> Tensor:
        self._decoder.eval()
        if self._generator_K is None:
            return torch.cat([self._decoder(chunk) for chunk in latents_MD.split(CHUNK)])
        generator_M = self._generator_K[row_M]
        # Latents are grouped by generator and decoded; the images return to the order of the latents.
        order_M = generator_M.argsort(stable=True)
        sizes = generator_M.bincount(minlength=len(self._weights_G)).tolist()
        decoded = []
        for number, group_MD in enumerate(latents_MD[order_M].split(sizes)):
            if len(group_MD):
                weights = dict(self._weights_G[number])
                decoded += [functional_call(self._decoder, weights, (chunk,)) for chunk in group_MD.split(CHUNK)]
        return torch.cat(decoded)[order_M.argsort()]
