"""Measures what a client predicts, batch by batch.

Shapes: N images, B images of a batch, C classes, D features.
"""

import functools
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
        peaks: peaks of memory in the evaluation, by metric name.
        probabilities_NC: softmax of the ranked predictor's scores of the test set; None without `evaluate.ensemble`.
        validation_accuracy: share of the validation images that the ranked predictor classifies correctly; None without
            validation images.
        global_validation_accuracy: share of the validation images of all clients that the ranked predictor classifies
            correctly; None without validation images.
    """

    confusions: dict[str, NDArray[np.int64]]
    peaks: dict[str, float]
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
            if not isinstance(scores_BC, Tensor) or scores_BC.shape != (len(labels_B), num_classes):
                shape = getattr(scores_BC, "shape", None)
                found = f"of the shape {tuple(shape)}" if shape is not None else "without a shape"
                expected = f"a tensor ({len(labels_B)}, {num_classes}) of a score for each image and class"
                raise TypeError(f"the predictor {name} returns a {type(scores_BC).__name__} {found}, not {expected}.")
            np.add.at(counts[name], (labels_B, scores_BC.argmax(dim=1).cpu().numpy()), 1)
            if probabilities is not None and place == 0:
                probabilities.append(scores_BC.softmax(dim=1).float().cpu().numpy())
    return counts


def checked_predictors(found: Mapping[str, Predictor]) -> Mapping[str, Predictor]:
    """Returns the result of `Method.predictors`; raises a TypeError unless it is a mapping with an entry."""
    if not isinstance(found, Mapping) or not found:
        what = "an empty mapping" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise TypeError(f"predictors returns {what}. Return a mapping of names to functions from images to scores.")
    return found


def accuracies(num_correct: Callable[[NDArray[np.int64]], int], *sets: NDArray[np.int64]) -> list[float | None]:
    """Returns the share of each set of images that is classified correctly; None for a set without images.

    An image that is in all sets is classified once.

    Args:
        num_correct: counts the correctly classified among the images of the given numbers.
        sets: the numbers of the images of each set.
    """
    common = functools.reduce(np.intersect1d, sets)
    num_common = num_correct(common) if len(common) else 0
    found: list[float | None] = []
    for numbers in sets:
        rest = np.setdiff1d(numbers, common)
        num_rest = num_correct(rest) if len(rest) else 0
        found.append((num_common + num_rest) / len(numbers) if len(numbers) else None)
    return found


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
