import numpy as np
import pytest

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.statistics import FeatureStatistics

# Class 0 has mean (1, 2) and deviations -(1, 2) and (1, 2); class 2 has one image.
FEATURES_BD = np.array([[0.0, 0.0], [2.0, 4.0], [1.0, 1.0]])
LABELS_B = np.array([0, 0, 2])


def of(form, sigma_floor=0.5, prior_count=1.0):
    statistics = FeatureStatistics.of(FEATURES_BD, LABELS_B, form)
    return ClassGaussians.of(statistics, sigma_floor=sigma_floor, prior_count=prior_count)


def rows(classes, spread, count=None):
    """Gaussians whose mean is (class, 10 x class)."""
    classes_K = np.array(classes, dtype=np.int64)
    mean_KD = np.stack([classes_K, 10 * classes_K], axis=1).astype(np.float32)
    count_K = np.array(count or classes_K + 1, dtype=np.int64)
    return ClassGaussians(classes_K, count_K, mean_KD, np.array(spread, dtype=np.float32))


@pytest.mark.parametrize(
    ("form", "spread"),
    [
        ("scalar", np.sqrt(10 / 6)),
        ("client_diagonal", [np.sqrt(2 / 3), np.sqrt(8 / 3)]),
        ("class_diagonal", [[1.0, 2.0], [0.5, 0.5]]),
    ],
)
def test_spread_by_hand(form, spread):
    gaussians = of(form)
    assert gaussians.classes_K.tolist() == [0, 2]
    assert gaussians.count_K.tolist() == [2, 1]
    assert gaussians.mean_KD.tolist() == [[1.0, 2.0], [1.0, 1.0]]
    assert gaussians.spread.shape == np.shape(spread)
    np.testing.assert_allclose(gaussians.spread, spread, rtol=1e-6)
    np.testing.assert_allclose(gaussians.std_KD(), np.broadcast_to(spread, (2, 2)), rtol=1e-6)


def test_full_covariance_by_hand():
    # (own scatter + prior_count x pooled diagonal) / (n + prior_count) + floor^2, pooled diagonal = (2/3, 8/3).
    first = np.array([[(2 + 2 / 3) / 3, 4 / 3], [4 / 3, (8 + 8 / 3) / 3]]) + 0.25 * np.eye(2)
    second = np.diag([1 / 3, 4 / 3]) + 0.25 * np.eye(2)
    gaussians = of("class_full")
    factors = gaussians.spread.astype(np.float64)
    assert (np.triu(factors, 1) == 0).all()
    np.testing.assert_allclose(factors @ factors.transpose(0, 2, 1), [first, second], rtol=1e-6)
    np.testing.assert_allclose(gaussians.std_KD(), np.sqrt([np.diag(first), np.diag(second)]), rtol=1e-6)


@pytest.mark.parametrize("form", ["scalar", "client_diagonal", "class_diagonal", "class_full"])
def test_gaussians_survive_a_message_of_read_only_float32_arrays(form):
    sent = of(form)
    payload = sent.to_payload()
    assert set(payload) == {"prototypes", "covariance"}
    for arrays in payload.values():
        for array in arrays.values():
            assert array.dtype in (np.float32, np.int64)
            array.flags.writeable = False
    received = ClassGaussians.from_arrays(payload["prototypes"], payload["covariance"])
    for name in ("classes_K", "count_K", "mean_KD", "spread"):
        assert np.array_equal(getattr(received, name), getattr(sent, name))
        assert getattr(received, name).dtype == getattr(sent, name).dtype


def test_dense_puts_rows_at_their_class_and_neutral_values_elsewhere():
    mean_CD, std_CD, held_C = rows([1, 3], [2.0, 4.0]).dense(4)
    assert mean_CD.tolist() == [[0, 0], [1, 10], [0, 0], [3, 30]]
    assert std_CD.tolist() == [[1, 1], [2, 4], [1, 1], [2, 4]]
    assert held_C.tolist() == [False, True, False, True]


def test_std_is_a_copy_that_may_be_written():
    gaussians = rows([0], [2.0, 4.0])
    gaussians.std_KD()[0, 0] = 9.0
    assert gaussians.spread.tolist() == [2.0, 4.0]


def test_keeping_takes_absent_classes_from_before_and_present_ones_from_now():
    now = rows([2, 3], [[2, 2], [3, 3]], count=[20, 30])
    before = rows([0, 2, 4], [[7, 7], [8, 8], [9, 9]], count=[1, 2, 4])
    kept = now.keeping(before)
    assert kept.classes_K.tolist() == [0, 2, 3, 4]
    assert kept.count_K.tolist() == [1, 20, 30, 4]
    assert kept.mean_KD.tolist() == [[0, 0], [2, 20], [3, 30], [4, 40]]
    assert kept.spread.tolist() == [[7, 7], [2, 2], [3, 3], [9, 9]]


@pytest.mark.parametrize("spread", [5.0, [5.0, 6.0]])
def test_keeping_leaves_a_pooled_spread_unchanged(spread):
    kept = rows([1], spread).keeping(rows([0, 1], np.full_like(spread, 9.0)))
    assert kept.classes_K.tolist() == [0, 1]
    assert kept.spread.tolist() == spread


def test_keeping_a_full_covariance_keeps_its_factor():
    now, before = rows([1], [np.eye(2) * 2]), rows([0], [np.eye(2) * 3])
    assert now.keeping(before).spread.tolist() == [[[3, 0], [0, 3]], [[2, 0], [0, 2]]]


def test_a_mixture_has_every_row_with_its_own_spread():
    mixed = ClassGaussians.mixture([rows([0, 1], 2.0, count=[5, 6]), rows([1], [3.0, 4.0], count=[7])])
    assert mixed.classes_K.tolist() == [0, 1, 1]
    assert mixed.count_K.tolist() == [5, 6, 7]
    assert mixed.spread.tolist() == [[2, 2], [2, 2], [3, 4]]


def test_a_mixture_of_full_covariances_keeps_their_factors():
    mixed = ClassGaussians.mixture([of("class_full"), of("class_full", sigma_floor=2.0)])
    assert mixed.spread.shape == (4, 2, 2)
    assert np.array_equal(mixed.spread[2:], of("class_full", sigma_floor=2.0).spread)
