"""A client's own images, read by index from the arrays that all clients share.

Shapes: N images of the client, B images of a batch, W images of a window, C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.client.image_memory import ImageMemory
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import Augmentation, augment, draw_shifts, shifted, to_input, to_tensor

_WINDOW_BYTES = 2**21
"""Size of the float images that are made at once: small enough for the cache of a CPU core."""


class OwnImages:
    """Images and labels of one client as tensors.

    Args:
        shared: training images of all clients; only read.
        indices_N: indices of the client's images.
        augmentation: kind of random change, `data.augment`.
        device: device of the tensors.
        memory: memory for the float images; None converts them each time.
    """

    def __init__(
        self,
        shared: ImageArrays,
        indices_N: NDArray[np.int64],
        augmentation: Augmentation,
        device: torch.device,
        memory: ImageMemory | None = None,
    ) -> None:
        self._shared, self._indices_N = shared, to_tensor(indices_N)
        self._augmentation, self._device = augmentation, device
        # A GPU converts images in no time, and its memory is scarce.
        self._memory = memory if device.type == "cpu" else None
        self._floats_NCHW: Tensor | None = None

    def __len__(self) -> int:
        return len(self._indices_N)

    def inputs(self, index_B: Tensor | None = None) -> Tensor:
        """Returns float images (B, channels, side, side) in [-1, 1]; without an index, all N images."""
        return self._made(torch.arange(len(self)) if index_B is None else index_B)

    def in_batches(self, index_batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the float images of each batch of indices, and the indices on the device of the images.

        The images of many batches are read, copied to the device and converted at once, because the calls for a batch
        of small images take longer than the work.
        """
        batches = list(index_batches)
        for window in self._windows([index_B.size(0) for index_B in batches]):
            index_W = torch.cat(batches[window])
            sizes = [index_B.size(0) for index_B in batches[window]]
            images_WCHW = self._made(index_W)
            yield from zip(images_WCHW.split(sizes), self._sent(index_W).split(sizes), strict=True)

    def _windows(self, sizes: Sequence[int]) -> Iterator[slice]:
        """Divides batches of these sizes into windows of at most `_WINDOW_BYTES`, at least one batch each."""
        most = _WINDOW_BYTES // self.image_bytes
        start, num_images = 0, 0
        for stop, size in enumerate(sizes):
            if stop > start and num_images + size > most:
                yield slice(start, stop)
                start, num_images = stop, 0
            num_images += size
        if sizes:
            yield slice(start, len(sizes))

    def _made(self, index_B: Tensor) -> Tensor:
        num_bytes = len(self) * self.image_bytes
        if self._floats_NCHW is None and self._memory is not None and self._memory.take(self, num_bytes):
            self._floats_NCHW = self._converted(torch.arange(len(self)))
        if self._floats_NCHW is not None:
            return self._floats_NCHW.index_select(0, index_B)
        return self._converted(index_B)

    def _converted(self, index_B: Tensor) -> Tensor:
        # Fancy indexing copies these images alone out of the shared, read-only array.
        pixels = self._shared.images_NCHW[self._indices_N[index_B].numpy()]
        return to_input(self._sent(torch.from_numpy(pixels)))

    def _sent(self, tensor: Tensor) -> Tensor:
        """Copies a tensor to the device; from pinned memory, so that a GPU goes on with the steps of the last batch."""
        return tensor if self._device.type == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as floats."""
        return 4 * int(np.prod(self._shared.images_NCHW.shape[1:]))

    @property
    def labels_N(self) -> Tensor:
        """Class of each image."""
        return torch.from_numpy(self._shared.labels_N[self._indices_N.numpy()]).to(self._device)

    def counts_C(self, num_classes: int) -> NDArray[np.int64]:
        """Returns the number of images of each class (C,)."""
        return np.bincount(self._shared.labels_N[self._indices_N.numpy()], minlength=num_classes)

    def augmented(self, images: Tensor) -> Tensor:
        """Applies the random changes of `data.augment`; draws from PyTorch's global generator."""
        if self._augmentation == "none":
            return images
        return augment(images, self._augmentation, torch.default_generator)

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of each batch of indices, augmented, and labels."""
        batches = list(index_batches)
        if not batches:
            return
        labels_W = self.labels_N[self._sent(torch.cat(batches))]
        labels = labels_W.split([index_B.size(0) for index_B in batches])
        for (images, _), labels_B in zip(self.in_batches(batches), labels, strict=True):
            yield self.augmented(images), labels_B

    def draw_augmented(self) -> Callable[[Tensor], Tensor]:
        """Draws the random changes of all N images; returns a function from indices to changed images."""
        side = min(self._shared.images_NCHW.shape[2:])
        shifts_2N, mirrored_N = draw_shifts(len(self), side, self._augmentation, torch.default_generator)

        def images(index_B: Tensor) -> Tensor:
            index_B = index_B.cpu()
            shifts_2B = None if shifts_2N is None else shifts_2N[:, index_B]
            return shifted(self.inputs(index_B), shifts_2B, None if mirrored_N is None else mirrored_N[index_B])

        return images
