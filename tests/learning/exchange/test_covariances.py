import math

import numpy as np
import pytest

from fedvtc.learning.exchange.covariances import (
    around_one_mean,
    class_gaussians,
    covariance_KDD,
    from_triangles,
    linear_discriminant,
    to_triangles,
)
from fedvtc.learning.exchange.statistics import FeatureStatistics


def statistics_of(features, labels):
    return FeatureStatistics.of(np.array(features), np.array(labels), "class_full")


def test_triangles_hold_symmetric_matrices():
    matrices = np.array([[[1.0, 2.0], [2.0, 3.0]], [[4.0, 0.0], [0.0, 5.0]]])
    triangles = to_triangles(matrices)
    assert triangles.tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 5.0]]
    assert triangles.dtype == np.float32
    assert np.array_equal(from_triangles(triangles, 2), matrices)


def test_the_covariance_of_two_clients_by_hand():
    merged = statistics_of([[0.0], [2.0]], [0, 0]) + statistics_of([[4.0]], [0])
    assert merged.mean_KD.tolist() == [[2.0]]
    # Divided by n - 1 = 2; 8/3 if divided by n.
    assert covariance_KDD(merged).tolist() == [[[4.0]]]


def test_merged_covariances_are_those_of_the_union():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    merged = FeatureStatistics.empty(3, "class_full")
    for part in np.split(np.arange(40), [1, 7, 22]):
        merged += statistics_of(features[part], labels[part])
    for label, covariance in zip(merged.classes_K, covariance_KDD(merged), strict=True):
        assert covariance == pytest.approx(np.cov(features[labels == label].T), abs=1e-12)


def test_gaussians_have_the_covariance_and_the_floor():
    statistics = statistics_of([[0.0, 0.0], [2.0, 2.0], [5.0, 5.0]], [0, 0, 2])
    gaussians = class_gaussians(statistics, sigma_floor=0.5)
    assert gaussians.classes_K.tolist() == [0, 2]
    assert gaussians.mean_KD.tolist() == [[1.0, 1.0], [5.0, 5.0]]
    squares = gaussians.spread @ gaussians.spread.transpose(0, 2, 1)
    # Class 0 has rank 1; class 2 has one image and the floor alone.
    assert squares == pytest.approx(np.array([[[2.25, 2.0], [2.0, 2.25]], [[0.25, 0.0], [0.0, 0.25]]]), abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_singular_covariance_of_a_message_has_a_factor_with_any_floor(scale):
    size, rng = 32, np.random.default_rng(3)
    features = scale * rng.normal(size=(12, size))
    exact = statistics_of(features, [0] * 11 + [4])
    matrices = from_triangles(to_triangles(covariance_KDD(exact)), size)
    # Rounding to float32 made the matrix of rank 10 indefinite.
    assert np.linalg.eigvalsh(matrices[0])[0] < -1e-9 * scale**2
    arrays = exact.to_arrays()
    scatter_KDD = matrices * (exact.count_K - 1)[:, None, None]
    read = FeatureStatistics.from_arrays({**arrays, "covariance": {"scatter": scatter_KDD}}, "class_full")
    gaussians = class_gaussians(read, sigma_floor=1e-6)
    squares = gaussians.spread.astype(np.float64) @ gaussians.spread.astype(np.float64).transpose(0, 2, 1)
    assert squares[0] == pytest.approx(covariance_KDD(exact)[0], abs=1e-4 * scale**2)
    # A class of one image has no variance, so that the floor alone remains.
    assert squares[1] == pytest.approx(1e-12 * np.eye(size), rel=1e-5)


def test_the_linear_discriminant_by_hand():
    statistics = statistics_of([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    head = linear_discriminant(statistics, 0.5 * np.eye(2), shrinkage=0.1, floor=1e-3, num_classes=3)
    assert head["weight"][:2] == pytest.approx(2 * np.eye(2))
    assert head["bias"][:2] == pytest.approx([-math.log(2) - 1] * 2)
    scores_C = head["weight"] @ np.array([1.0, 0.0]) + head["bias"]
    assert scores_C[:2] == pytest.approx([0.307, -1.693], abs=1e-3)
    # Class 2 is held by nobody.
    assert scores_C[2] < -1e5


def test_shrinkage_makes_a_singular_covariance_usable():
    statistics = statistics_of([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    settings = {"floor": 0.01, "num_classes": 2}
    for covariance in (np.zeros((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]])):
        head = linear_discriminant(statistics, covariance, shrinkage=0.5, **settings)
        assert np.isfinite(head["weight"]).all()
    # Zero covariance: S = 0.5 * 0.01 I.
    head = linear_discriminant(statistics, np.zeros((2, 2)), shrinkage=0.5, **settings)
    assert head["weight"] == pytest.approx(200 * np.eye(2))


def test_the_scatter_around_one_mean_is_that_of_all_features():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(20, 3)), rng.integers(0, 4, 20)
    statistics = statistics_of(features, labels)
    expected = np.cov(features.T, ddof=0) * 20
    assert around_one_mean(statistics, statistics.scatter.sum(axis=0)) == pytest.approx(expected, abs=1e-10)
