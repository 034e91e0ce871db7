"""Membership inference: does a low loss of a client's model show that an image is a training image?

Source: S. Yeom et al., "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting", CSF 2018. The true
positive rate at a low false positive rate is the measure of N. Carlini et al., "Membership Inference Attacks From First
Principles", S&P 2022; their shadow models would make the attack stronger.

Shapes: M training images, U unseen images, C classes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedvtc.learning.client.evaluation import Predictor
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import to_input, to_tensor

MAX_FALSE_POSITIVES = 0.01


class Membership(NamedTuple):
    """The success of the attack on one model.

    Attributes:
        auc: probability that a training image has a lower loss than an unseen image of the same class mix.
        tpr: share of the training images that the attack finds while it names at most 1 % of the unseen images.
    """

    auc: float
    tpr: float


def membership(losses_M: NDArray[Any], losses_U: NDArray[Any], weights_U: NDArray[Any]) -> Membership:
    """Attacks by a threshold on the loss.

    Args:
        losses_M: losses of the training images.
        losses_U: losses of the unseen images.
        weights_U: weight of each unseen image, so that both sides have one class mix.
    """
    from sklearn.metrics import auc, roc_curve

    is_member = np.concatenate([np.ones(len(losses_M)), np.zeros(len(losses_U))])
    weights = np.concatenate([np.full(len(losses_M), 1 / len(losses_M)), weights_U / weights_U.sum()])
    scores = -np.concatenate([losses_M, losses_U]).astype(np.float64)
    false, true, _ = roc_curve(is_member, scores, sample_weight=weights, drop_intermediate=False)
    return Membership(float(auc(false, true)), float(true[false <= MAX_FALSE_POSITIVES + 1e-12].max()))


def membership_of(
    predictor: Predictor, own: ImageArrays, unseen: ImageArrays, *, batch_size: int, device: torch.device
) -> Membership | None:
    """Attacks a client's model.

    Images of classes that lack training images or unseen images are left out: the class alone would give them away.

    Args:
        predictor: the client's model.
        own: the client's training images.
        unseen: images that no client trained on.
        batch_size: images in a batch.
        device: device of the model.

    Returns:
        The success; None if no class has both.
    """
    num_classes = int(max(own.labels_N.max(initial=-1), unseen.labels_N.max(initial=-1))) + 1
    own_C, unseen_C = (np.bincount(images.labels_N, minlength=num_classes) for images in (own, unseen))
    shared_C = (own_C > 0) & (unseen_C > 0)
    if not shared_C.any():
        return None
    weight_C = own_C / np.maximum(unseen_C, 1)
    losses = []
    for images in (own, unseen):
        chosen_N = np.flatnonzero(shared_C[images.labels_N])
        chosen = ImageArrays(images.images_NCHW[chosen_N], images.labels_N[chosen_N])
        losses.append((_losses(predictor, chosen, batch_size, device), weight_C[chosen.labels_N]))
    return membership(losses[0][0], *losses[1])


@torch.inference_mode()
def _losses(predictor: Predictor, images: ImageArrays, batch_size: int, device: torch.device) -> NDArray[np.float64]:
    """Returns the cross-entropy of each image."""
    parts = []
    for start in range(0, len(images.labels_N), batch_size):
        rows = slice(start, start + batch_size)
        scores_BC = predictor(to_input(to_tensor(images.images_NCHW[rows]).to(device)))
        labels_B = to_tensor(images.labels_N[rows]).to(device)
        parts.append(functional.cross_entropy(scores_BC.double(), labels_B, reduction="none").cpu().numpy())
    return np.concatenate(parts)
