"""Measures what a client predicts, batch by batch.

Shapes: N images, B images of a batch, C classes.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import to_input, to_tensor

Predictor = Callable[[Tensor], Tensor]
"""Maps images (B, channels, side, side) in [-1, 1] to scores (B, C); the class of the highest score is predicted."""


@torch.inference_mode()
def confusions(
    images: ImageArrays, predictors: Mapping[str, Predictor], *, num_classes: int, batch_size: int, device: torch.device
) -> dict[str, NDArray[np.int64]]:
    """Returns image counts (C, C) of each predictor: rows are true classes, columns predicted ones."""
    counts = {name: np.zeros((num_classes, num_classes), dtype=np.int64) for name in predictors}
    for start in range(0, len(images.labels_N), batch_size):
        batch = to_input(to_tensor(images.images_NCHW[start : start + batch_size]).to(device))
        labels_B = images.labels_N[start : start + batch_size]
        for name, scores in predictors.items():
            np.add.at(counts[name], (labels_B, scores(batch).argmax(dim=1).cpu().numpy()), 1)
    return counts


@torch.inference_mode()
def is_finite(predictor: Predictor, images: Tensor) -> bool:
    """Returns True if all scores of the images are finite."""
    return bool(predictor(images).isfinite().all())
