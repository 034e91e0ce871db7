"""Prediction by the nearest prototype, for methods whose prototypes have no spread.

Shapes: C classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.base import Predictor

UNIT_SPREAD = np.ones((), dtype=np.float32)
"""A spread of 1, with which the pull towards a Gaussian is that towards its mean."""


def as_gaussians(prototypes: Arrays) -> ClassGaussians:
    """Reads prototypes with their classes and counts as Gaussians of spread 1."""
    return ClassGaussians.from_arrays(prototypes, {"spread": UNIT_SPREAD})


def nearest_prototypes(
    client: FederatedClient, gaussians: ClassGaussians, allowed_C: NDArray[np.bool_] | None = None
) -> Predictor:
    """Returns the predictor argmin_y mean_j (g(x)_j - c_j^y)^2 over the classes that have a prototype.

    Args:
        client: the client whose features are compared.
        gaussians: the prototypes, as means.
        allowed_C: False for classes that are never named; None allows all.
    """
    import torch

    from fedvtc.learning.models.classifier import nearest_prototype

    mean_CD, _, held_C = gaussians.dense(client.num_classes)
    named_C = held_C if allowed_C is None else held_C & allowed_C
    prototypes_CD, allowed = (torch.tensor(array, device=client.device) for array in (mean_CD, named_C))

    def nearest(images: Tensor) -> Tensor:
        return nearest_prototype(client.classifier.features(images), prototypes_CD, allowed)

    return nearest
