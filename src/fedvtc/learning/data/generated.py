"""A set of generated images in bytes, with labels, as a server broadcasts it.

Shapes: N images of the set, B images of a batch, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.data.datasets import Dataset
from fedvtc.learning.data.module import to_input, to_tensor


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """Pixels from 0 to 255, and labels.

    Attributes:
        pixels_NCHW: the images.
        labels_N: class of each image.
    """

    pixels_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Self:
        """Joins batches of images in [-1, 1], rounded to whole pixels, and their labels."""
        pixels_NCHW = np.concatenate([to_pixels(part) for part in images])
        return cls(pixels_NCHW, np.concatenate([part.cpu().numpy() for part in labels]).astype(np.int64))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Builds the set from the arrays that `to_arrays` returned."""
        return cls(np.asarray(arrays["pixels"], dtype=np.uint8), np.asarray(arrays["labels"], dtype=np.int64))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Returns the arrays of a message: one byte for each pixel, and one for a label below 256."""
        dtype = np.uint8 if self.labels_N.max(initial=0) < 256 else np.int16
        return {"pixels": self.pixels_NCHW, "labels": self.labels_N.astype(dtype)}

    def __len__(self) -> int:
        return len(self.labels_N)

    def batch(self, index_B: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns images in [-1, 1] and labels on a device."""
        rows_B = index_B.cpu().numpy()
        images = to_input(to_tensor(self.pixels_NCHW[rows_B]).to(device))
        return images, to_tensor(self.labels_N[rows_B]).to(device)

    def first(self, num_per_class: int) -> tuple[Tensor, Tensor]:
        """Returns the first images of each class, sorted by class, and their labels; the same number for each class.

        If a class has fewer than `num_per_class` images, every class has as few.
        """
        classes, counts = np.unique(self.labels_N, return_counts=True)
        number = min(num_per_class, *counts)
        rows = [np.flatnonzero(self.labels_N == label)[:number] for label in classes]
        return self.batch(torch.from_numpy(np.concatenate(rows)), torch.device("cpu"))


def drawn_pixels(drawn: object, dataset: Dataset) -> tuple[NDArray[np.uint8], list[int]]:
    """Returns the pixels and labels of the images that `Method.samples` has drawn.

    Raises:
        TypeError: the result is not a tensor of images of the data set's shape, and a class for each.
    """
    shape = (dataset.num_channels, dataset.image_size, dataset.image_size)
    match drawn:
        case (Tensor() as images, Tensor() as labels_N) if len(images) == len(labels_N) > 0:
            fits = labels_N.min() >= 0 and labels_N.max() < dataset.num_classes
            if images.shape[1:] == shape and fits:
                return to_pixels(images), labels_N.tolist()
    what = f"not tensors of images (N, {', '.join(map(str, shape))}) and of classes (N,) below {dataset.num_classes}"
    raise TypeError(f"samples returns something else, {what}. Return both, or None.")


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Converts images in [-1, 1] to pixels from 0 to 255; the inverse of `to_input`."""
    pixels: NDArray[np.uint8] = ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels
