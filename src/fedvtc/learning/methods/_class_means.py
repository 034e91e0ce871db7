"""Class means that clients upload without image counts, and the batches that a server makes of them.

Shapes: N class means of all uploads, K classes held, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.exchange.messages import Arrays, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics

if TYPE_CHECKING:
    from torch import Tensor


def class_means(statistics: FeatureStatistics) -> Arrays:
    """Returns the arrays of the payload kind `prototypes`: classes held (K,) and their means (K, D) in float32."""
    return {"classes": statistics.classes_K, "mean": statistics.mean_KD.astype(np.float32)}


def largest_class_means(num_classes: int, feature_size: int) -> Arrays:
    """Returns `class_means` of a client that holds every class, with zeros as means."""
    return {"classes": np.arange(num_classes), "mean": np.zeros((num_classes, feature_size), dtype=np.float32)}


def stacked(uploads: Iterable[Upload]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the class means (N, D) of all uploads and the class of each (N,)."""
    parts = [upload.payload["prototypes"] for upload in uploads]
    means_ND = np.concatenate([part["mean"] for part in parts])
    return means_ND, np.concatenate([part["classes"] for part in parts])


def batches(*rows: NDArray[np.generic], batch_size: int, epochs: int) -> Iterator[tuple[Tensor, ...]]:
    """Yields epochs over rows of arrays of equal length, as tensors; the open `phase` keys the order."""
    import torch

    from fedvtc.learning.data.module import epoch_batches

    tensors = [torch.tensor(array) for array in rows]
    for _ in range(epochs):
        for index_B in epoch_batches(len(tensors[0]), batch_size, torch.default_generator):
            yield tuple(tensor[index_B] for tensor in tensors)
