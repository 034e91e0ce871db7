"""Covariances in messages, and class Gaussians and a linear discriminant from merged statistics.

Shapes: K classes held, C classes, D features, M matrices, T = D (D + 1) / 2 entries of a triangle.
"""

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays
from fedvtc.learning.exchange.statistics import FeatureStatistics, FloatArray, factors_with_ridge

_NEVER = -1e6
"""Bias of a class that no client holds; no score is lower."""


def to_triangles(matrices_MDD: FloatArray) -> NDArray[np.float32]:
    """Returns the lower triangles (M, T) of symmetric matrices, in the precision of messages."""
    rows, columns = np.tril_indices(matrices_MDD.shape[1])
    return matrices_MDD[:, rows, columns].astype(np.float32)


def from_triangles(triangles_MT: NDArray[np.generic], size: int) -> FloatArray:
    """Returns the symmetric matrices (M, D, D) of `to_triangles`."""
    rows, columns = np.tril_indices(size)
    matrices_MDD = np.zeros((len(triangles_MT), size, size))
    matrices_MDD[:, rows, columns] = triangles_MT
    matrices_MDD[:, columns, rows] = triangles_MT
    return matrices_MDD


def covariance_KDD(statistics: FeatureStatistics) -> FloatArray:
    """Returns the covariance of each class, scatter / (n - 1); zero for a class of one image."""
    covariance: FloatArray = statistics.scatter / np.maximum(statistics.count_K - 1, 1)[:, None, None]
    return covariance


def class_gaussians(statistics: FeatureStatistics, sigma_floor: float) -> ClassGaussians:
    """Builds N(mean, covariance + r I) of each class of statistics with the form `class_full`.

    `factors_with_ridge` gives r, with eps of float32, because covariances pass through `to_triangles`.
    """
    rounding = float(np.finfo(np.float32).eps)
    factor_KDD = factors_with_ridge(covariance_KDD(statistics), sigma_floor, rounding).astype(np.float32)
    return ClassGaussians(statistics.classes_K, statistics.count_K, statistics.mean_KD.astype(np.float32), factor_KDD)


def around_one_mean(statistics: FeatureStatistics, within_DD: FloatArray) -> FloatArray:
    """Returns the scatter around the mean of all features, from the scatter around the means of classes."""
    mean_KD, count_K = statistics.mean_KD, statistics.count_K
    deviation_KD = mean_KD - np.average(mean_KD, axis=0, weights=count_K)
    scatter_DD: FloatArray = within_DD + (count_K[:, None] * deviation_KD).T @ deviation_KD
    return scatter_DD


def linear_discriminant(
    statistics: FeatureStatistics, covariance_DD: FloatArray, *, shrinkage: float, floor: float, num_classes: int
) -> Arrays:
    """Returns the head W_y = S^-1 mu_y, b_y = ln pi - 1/2 mu_y^T S^-1 mu_y, with pi uniform over the held classes.

    S = (1 - gamma) Sigma + gamma (tr Sigma / p) I, because normalised features have no variance in one direction.

    Args:
        statistics: means of the held classes.
        covariance_DD: Sigma.
        shrinkage: gamma, above 0.
        floor: least value of tr Sigma / p, for statistics without any variance.
        num_classes: classes C. A class that is not held never wins.
    """
    mean_KD, size = statistics.mean_KD, statistics.feature_size
    scale = max(float(np.trace(covariance_DD)) / size, floor)
    weight_KD = np.linalg.solve((1 - shrinkage) * covariance_DD + shrinkage * scale * np.eye(size), mean_KD.T).T
    weight_CD, bias_C = np.zeros((num_classes, size)), np.full(num_classes, _NEVER)
    weight_CD[statistics.classes_K] = weight_KD
    bias_C[statistics.classes_K] = -np.log(len(mean_KD)) - 0.5 * (weight_KD * mean_KD).sum(axis=1)
    return {"weight": weight_CD.astype(np.float32), "bias": bias_C.astype(np.float32)}
