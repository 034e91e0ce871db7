"""Draws the images of each pass of fine-tuning: generated images, and the client's own.

Shapes: N images, K classes, M of the N images.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.data.module import draw_affine, moved
from fedvtc.learning.methods.fedvtc.config import FinetuneConfig
from fedvtc.learning.methods.fedvtc.images import WINDOW_BYTES, ImageSource, LazyImages

LEAST_OWN = 10
"""Fewest own images of a class that `balanced` uses; fewer teach the images themselves instead of the class."""
MOST_REPEATS = 4
"""Most times that `balanced` repeats the own images of a class in a pass."""


class Passes:
    """The passes of one fine-tuning; all draws are from PyTorch's global generator.

    Args:
        source: draws generated images.
        own: the client's own images.
        config: the keys of fine-tuning.
        counted: runs a step on a number of images, and counts its operations.
    """

    def __init__(
        self,
        source: ImageSource,
        own: OwnImages,
        config: FinetuneConfig,
        counted: Callable[[int, Callable[[], LazyImages]], LazyImages] = lambda _, step: step(),
    ) -> None:
        self._source, self._own, self._config, self._counted = source, own, config, counted
        self._pool: LazyImages | None = None
        self._own_K = self._count_own()

    def draw(self) -> LazyImages:
        """Draws the images of one pass."""
        images = self._generated()
        if self._config.sharpening:
            images = _sharpened(images, self._config.sharpening)
        if self._own_K.any():
            images = images.then(self._balanced())
        if self._config.augment == "affine":
            images = _affine(images)
        if self._config.real_data == "mixed":
            images = images.then(LazyImages(self._own.labels_N, self._own.draw_augmented()))
        return images

    def _count_own(self) -> torch.Tensor:
        """Returns the number of own images of each class of the source in a pass of `balanced`, (K,)."""
        held_K = torch.stack([(self._own.labels_N == label).sum().cpu() for label in self._source.classes])
        if self._config.real_data != "balanced":
            return torch.zeros_like(held_K)
        wanted = round(self._config.real_share * self._config.images_per_class)
        return (MOST_REPEATS * held_K).clamp(max=wanted) * (held_K >= LEAST_OWN)

    def _generated(self) -> LazyImages:
        """Draws the generated images of a pass, new or from the pool."""
        num_K = self._config.images_per_class - self._own_K
        if not self._config.pool:
            return self._source.draw(num_K)
        if self._pool is None:
            pool = self._source.draw(torch.full_like(num_K, self._config.pool))
            fits = len(pool) * self._own.image_bytes <= WINDOW_BYTES
            self._pool = self._counted(len(pool), pool.kept) if fits else pool
        chosen = [
            number * self._config.pool + torch.randperm(self._config.pool)[:num].sort().values
            for number, num in enumerate(num_K.tolist())
        ]
        return self._pool.select(torch.cat(chosen))

    def _balanced(self) -> LazyImages:
        """Draws own images with repetition, as many of each class as `_own_K` says."""
        labels_N = self._own.labels_N.cpu()
        chosen = []
        for label, num in zip(self._source.classes, self._own_K.tolist(), strict=True):
            (held_M,) = torch.nonzero(labels_N == label, as_tuple=True)
            chosen.append(held_M[torch.randint(len(held_M), (num,))] if num else held_M[:0])
        return LazyImages(self._own.labels_N, self._own.draw_augmented()).select(torch.cat(chosen))


def _affine(images: LazyImages) -> LazyImages:
    theta_N23 = draw_affine(len(images), images.labels_N.device)
    return LazyImages(images.labels_N, lambda index_M: moved(images.images(index_M), theta_N23[index_M]))


def _sharpened(images: LazyImages, most: float) -> LazyImages:
    """Adds to each image its difference from its 3 x 3 means, times a number between 0 and `most` (an unsharp mask).

    The squared error of reconstruction teaches the generator blurred images, and test images are not blurred.
    """
    strength_N111 = most * torch.rand(len(images), 1, 1, 1, device=images.labels_N.device)

    def sharp(index_M: torch.Tensor) -> torch.Tensor:
        made = images.images(index_M)
        # Means leave out what lies beyond the edge.
        means = functional.avg_pool2d(made, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        return (made + strength_N111[index_M] * (made - means)).clamp(-1, 1)

    return LazyImages(images.labels_N, sharp)
