"""A client's own images, read by index from the arrays that all clients share.

Shapes: N images of the client, B images of a batch, C classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import Augmentation, augment, draw_shifts, shifted, to_input, to_tensor


class OwnImages:
    """Images and labels of one client as tensors.

    Args:
        shared: training images of all clients; only read.
        indices_N: indices of the client's images.
        augmentation: kind of random change, `data.augment`.
        device: device of the tensors.
    """

    def __init__(
        self, shared: ImageArrays, indices_N: NDArray[np.int64], augmentation: Augmentation, device: torch.device
    ) -> None:
        self._shared, self._indices_N = shared, to_tensor(indices_N)
        self._augmentation, self._device = augmentation, device

    def __len__(self) -> int:
        return len(self._indices_N)

    def inputs(self, index_B: Tensor | None = None) -> Tensor:
        """Returns float images (B, channels, side, side) in [-1, 1]; without an index, all N images."""
        index_B = torch.arange(len(self)) if index_B is None else index_B
        # Fancy indexing copies the batch alone out of the shared, read-only array.
        pixels = torch.from_numpy(self._shared.images_NCHW[self._indices_N[index_B].numpy()])
        return to_input(pixels.to(self._device))

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
        return augment(images, self._augmentation, torch.default_generator)

    def draw_augmented(self) -> Callable[[Tensor], Tensor]:
        """Draws the random changes of all N images; returns a function from indices to changed images."""
        side = min(self._shared.images_NCHW.shape[2:])
        shifts_2N, mirrored_N = draw_shifts(len(self), side, self._augmentation, torch.default_generator)

        def images(index_B: Tensor) -> Tensor:
            index_B = index_B.cpu()
            shifts_2B = None if shifts_2N is None else shifts_2N[:, index_B]
            return shifted(self.inputs(index_B), shifts_2B, None if mirrored_N is None else mirrored_N[index_B])

        return images
