"""Measures what a client predicts, batch by batch.

Shapes: N images, B images of a batch, C classes, D features.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import to_input, to_tensor
from fedvtc.learning.models.classifier import ClassifierModule

_NUM_PROBES = 2
"""Images that `has_finite_outputs` classifies. Overflowed weights break nearly all; eight cost 4 % of a round."""

_LARGE = 100.0
"""Weights beyond which outputs may overflow. Trained weights are below 10, and those after a step that is far too long
are far beyond: the loss before that step was finite."""

Predictor = Callable[[Tensor], Tensor]
"""Maps images (B, channels, side, side) in [-1, 1] to scores (B, C); the class of the highest score is predicted."""

Scores = list[NDArray[np.float32]]
"""Scores (B, C) of each batch."""


class Evaluation(NamedTuple):
    """The evaluation of one client.

    Attributes:
        confusions: image counts (C, C) of the test set by true class (row) and predicted class (column), for each
            predictor, the ranked one first.
        probabilities_NC: softmax of the ranked predictor's scores of the test set; None without `evaluate.ensemble`.
        validation_accuracy: share of the validation images that the ranked predictor classifies correctly; None without
            validation images.
        global_validation_accuracy: share of the validation images of all clients that the ranked predictor classifies
            correctly; None without validation images.
    """

    confusions: dict[str, NDArray[np.int64]]
    probabilities_NC: NDArray[np.float32] | None = None
    validation_accuracy: float | None = None
    global_validation_accuracy: float | None = None


@torch.inference_mode()
def confusions(
    images: ImageArrays,
    predictors: Mapping[str, Predictor],
    *,
    num_classes: int,
    batch_size: int,
    device: torch.device,
    probabilities: Scores | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Returns image counts (C, C) of each predictor: rows are true classes, columns predicted ones.

    Args:
        images: the images, in the order of the batches.
        predictors: the predictors, the ranked one first.
        num_classes: classes C.
        batch_size: images of a batch.
        device: device of the predictors.
        probabilities: gets the softmax (B, C) of the ranked predictor's scores of each batch.
    """
    counts = {name: np.zeros((num_classes, num_classes), dtype=np.int64) for name in predictors}
    for batch, labels_B in _batches(images, batch_size, device):
        for place, (name, predictor) in enumerate(predictors.items()):
            scores_BC = predictor(batch)
            np.add.at(counts[name], (labels_B, scores_BC.argmax(dim=1).cpu().numpy()), 1)
            if probabilities is not None and place == 0:
                probabilities.append(scores_BC.softmax(dim=1).float().cpu().numpy())
    return counts


def accuracy(confusions_of: Callable[[ImageArrays], NDArray[np.int64]], images: ImageArrays) -> float | None:
    """Returns the share of the images that are classified correctly; None without images.

    Args:
        confusions_of: counts images (C, C) by true and predicted class.
        images: the images.
    """
    num_images = len(images.labels_N)
    return float(np.trace(confusions_of(images)) / num_images) if num_images else None


@torch.inference_mode()
def features(images: ImageArrays, classifier: ClassifierModule, *, batch_size: int) -> NDArray[np.float32]:
    """Returns the features of a classifier in eval mode, (N, D)."""
    classifier.eval()
    found = (classifier.features(batch) for batch, _ in _batches(images, batch_size, classifier.device))
    return np.concatenate([features_BD.float().cpu().numpy() for features_BD in found])


def _batches(images: ImageArrays, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    for start in range(0, len(images.labels_N), batch_size):
        stop = start + batch_size
        yield to_input(to_tensor(images.images_NCHW[start:stop]).to(device)), images.labels_N[start:stop]


@torch.inference_mode()
def has_finite_outputs(classifier: nn.Module, images: OwnImages) -> bool:
    """Returns True if no weight is large, or if the logits of some of a client's own images are finite.

    To classify two images takes more than half as long as a training step of a small model, because no other step has
    batches of this size.
    """
    tensors = [tensor for tensor in (*classifier.parameters(), *classifier.buffers()) if tensor.is_floating_point()]
    if bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).max() <= _LARGE):
        return True
    logits: Tensor = classifier.eval()(images.inputs(torch.arange(min(_NUM_PROBES, len(images)))))
    return bool(logits.isfinite().all())
