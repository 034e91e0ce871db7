from functools import reduce
from operator import add
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.learning.exchange.statistics import FeatureStatistics, Form

FORMS = get_args(Form)
every_form = pytest.mark.parametrize("form", FORMS)


@st.composite
def cut_features(draw):
    """Labelled features and a cut into parts: few classes, so parts lack some and hold single images of others."""
    num_images = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_classes = draw(st.integers(1, 6))
    scale_D = 10.0 ** rng.integers(-2, 3, size=draw(st.integers(1, 4)))
    centre_KD = rng.normal(size=(num_classes, len(scale_D)))
    labels_B = 3 * rng.integers(num_classes, size=num_images) + 2
    features_BD = (centre_KD[(labels_B - 2) // 3] + rng.normal(size=(num_images, len(scale_D)))) * scale_D
    part_B = rng.integers(draw(st.integers(1, 8)), size=num_images)
    return features_BD, labels_B, [part_B == part for part in range(8)]


def assert_same(left: FeatureStatistics, right: FeatureStatistics, rtol: float = 1e-10) -> None:
    assert left.form == right.form
    assert left.classes_K.tolist() == right.classes_K.tolist()
    assert left.count_K.tolist() == right.count_K.tolist()
    np.testing.assert_allclose(left.mean_KD, right.mean_KD, rtol=rtol, atol=rtol * abs(right.mean_KD).max(initial=0))
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=rtol, atol=rtol * abs(right.scatter).max(initial=0))


@every_form
def test_hand_worked_scatter_by_form(form):
    # Class 1: (0, 0), (2, 4), mean (1, 2), deviations -+(1, 2). Class 7: (5, 5) alone.
    features_BD, labels_B = np.array([[0, 0], [5, 5], [2, 4]]), np.array([1, 7, 1])
    statistics = FeatureStatistics.of(features_BD, labels_B, form)
    expected = {
        "scalar": 10.0,
        "client_diagonal": [2.0, 8.0],
        "class_diagonal": [[2.0, 8.0], [0.0, 0.0]],
        "class_full": [[[2.0, 4.0], [4.0, 8.0]], [[0.0, 0.0], [0.0, 0.0]]],
    }
    assert statistics.classes_K.tolist() == [1, 7]
    assert statistics.count_K.tolist() == [2, 1]
    assert statistics.mean_KD.tolist() == [[1.0, 2.0], [5.0, 5.0]]
    assert statistics.scatter.tolist() == expected[form]
    std_by_form = {
        "scalar": [[np.sqrt(10 / 6)] * 2] * 2,
        "client_diagonal": [[np.sqrt(2 / 3), np.sqrt(8 / 3)]] * 2,
        "class_diagonal": [[1.0, 2.0], [0.5, 0.5]],
        "class_full": [[1.0, 2.0], [0.5, 0.5]],
    }
    np.testing.assert_allclose(statistics.std_KD(floor=0.5), std_by_form[form], rtol=1e-15)


def test_hand_worked_merge_of_two_single_images():
    # n_a n_b / (n_a + n_b) = 1/2, delta (2, 4): the between-part term is half of its outer product.
    left = FeatureStatistics.of(np.array([[0.0, 0.0]]), np.array([3]), "class_full")
    right = FeatureStatistics.of(np.array([[2.0, 4.0]]), np.array([3]), "class_full")
    merged = left + right
    assert merged.mean_KD.tolist() == [[1.0, 2.0]]
    assert merged.scatter.tolist() == [[[2.0, 4.0], [4.0, 8.0]]]


@every_form
@settings(max_examples=60, deadline=None)
@given(cut=cut_features())
def test_merged_parts_are_the_statistics_of_the_union(form, cut):
    features_BD, labels_B, parts = cut
    union = FeatureStatistics.of(features_BD, labels_B, form)
    merged = reduce(add, [FeatureStatistics.of(features_BD[part], labels_B[part], form) for part in parts])
    assert_same(merged, union)


@every_form
@settings(max_examples=40, deadline=None)
@given(cut=cut_features(), data=st.data())
def test_neither_order_nor_tree_shape_matters(form, cut, data):
    features_BD, labels_B, parts = cut
    pool = [FeatureStatistics.of(features_BD[part], labels_B[part], form) for part in parts]
    in_order = reduce(add, pool)
    while len(pool) > 1:
        left = pool.pop(data.draw(st.integers(0, len(pool) - 1)))
        right = pool.pop(data.draw(st.integers(0, len(pool) - 1)))
        pool.append(left.merge(right))
    assert_same(pool[0], in_order)


@every_form
def test_empty_is_neutral_on_both_sides_to_the_last_bit(form):
    rng = np.random.default_rng(0)
    some = FeatureStatistics.of(rng.normal(size=(9, 3)), rng.integers(4, size=9), form)
    empty = FeatureStatistics.empty(3, form)
    assert_same(some + empty, some, rtol=0)
    assert_same(empty + some, some, rtol=0)
    assert_same(empty + empty, empty, rtol=0)
    assert_same(FeatureStatistics.of(np.zeros((0, 3)), np.zeros(0), form), empty, rtol=0)
    assert empty.num_images == 0
    assert empty.std_KD(0.1).shape == (0, 3)
    assert empty.factor_KDD(0.1, 1.0).shape == (0, 3, 3)


@every_form
def test_a_class_that_one_part_lacks_keeps_every_bit(form):
    rng = np.random.default_rng(1)
    left = FeatureStatistics.of(rng.normal(size=(5, 2)), np.zeros(5, dtype=int), form)
    right = FeatureStatistics.of(rng.normal(size=(4, 2)) + 1e9, np.full(4, 8), form)
    merged = left + right
    assert merged.classes_K.tolist() == [0, 8]
    assert merged.mean_KD.tolist() == [*left.mean_KD.tolist(), *right.mean_KD.tolist()]
    if form.startswith("class_"):
        assert merged.scatter.tolist() == [*left.scatter.tolist(), *right.scatter.tolist()]
    else:
        assert merged.scatter.tolist() == (left.scatter + right.scatter).tolist()


@every_form
def test_an_offset_of_a_million_keeps_six_digits_of_the_spread(form):
    rng = np.random.default_rng(2)
    centred_BD, labels_B = rng.normal(size=(3000, 4)), rng.integers(3, size=3000)
    part_B = rng.integers(50, size=3000)
    parts = [part_B == part for part in range(50)]
    shifted = reduce(add, [FeatureStatistics.of(centred_BD[part] + 1e6, labels_B[part], form) for part in parts])
    std_KD = FeatureStatistics.of(centred_BD, labels_B, form).std_KD(1e-9)
    np.testing.assert_allclose(shifted.std_KD(1e-9), std_KD, rtol=1e-7)
    # The textbook E[x^2] - E[x]^2 loses the spread here, so the test can tell.
    assert abs((np.square(centred_BD + 1e6).mean() - np.square((centred_BD + 1e6).mean())) - 1) > 1e-6


@every_form
def test_float32_features_are_summed_in_float64(form):
    rng = np.random.default_rng(3)
    features_BD = (rng.normal(size=(500, 3)) + 100).astype(np.float32)
    labels_B = rng.integers(2, size=500).astype(np.int32)
    statistics = FeatureStatistics.of(features_BD, labels_B, form)
    assert_same(statistics, FeatureStatistics.of(features_BD.astype(np.float64), labels_B, form), rtol=0)
    assert {array.dtype.name for kind in statistics.to_arrays().values() for array in kind.values()} == {
        "int64",
        "float64",
    }


def test_standard_deviation_is_the_population_form():
    rng = np.random.default_rng(4)
    features_BD = rng.normal(size=(50, 3))
    statistics = FeatureStatistics.of(features_BD, np.zeros(50, dtype=int), "class_diagonal")
    np.testing.assert_allclose(statistics.std_KD(0.0)[0], features_BD.std(axis=0, ddof=0), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(cut=cut_features(), prior_count=st.floats(0, 20), floor=st.floats(1e-3, 1))
def test_factor_times_its_transpose_is_the_shrunk_covariance(cut, prior_count, floor):
    features_BD, labels_B, _ = cut
    statistics = FeatureStatistics.of(features_BD, labels_B, "class_full")
    factor_KDD = statistics.factor_KDD(floor=floor, prior_count=prior_count)
    within = [
        features_BD[labels_B == label] - features_BD[labels_B == label].mean(axis=0) for label in np.unique(labels_B)
    ]
    pooled_DD = np.diag(np.square(np.concatenate(within)).mean(axis=0))
    for rows_ND, factor_DD in zip(within, factor_KDD, strict=True):
        own_DD, weight = rows_ND.T @ rows_ND / len(rows_ND), prior_count / (len(rows_ND) + prior_count)
        expected = (1 - weight) * own_DD + weight * pooled_DD + floor**2 * np.eye(len(own_DD))
        np.testing.assert_allclose(factor_DD @ factor_DD.T, expected, rtol=1e-9, atol=1e-9 * expected.max())
        assert (np.triu(factor_DD, 1) == 0).all()
        assert (np.diagonal(factor_DD) > 0).all()


def test_fewer_images_shrink_more():
    # Both classes are perfectly correlated; the pooled diagonal is 1, so the correlation left is n / (n + 4).
    pair_ND = np.array([[1.0, 1.0], [-1.0, -1.0]])
    features_BD, labels_B = np.concatenate([pair_ND, *[pair_ND] * 8]), np.repeat([0, 1], [2, 16])
    factor_KDD = FeatureStatistics.of(features_BD, labels_B, "class_full").factor_KDD(floor=1e-6, prior_count=4.0)
    covariance_KDD = factor_KDD @ factor_KDD.transpose(0, 2, 1)
    np.testing.assert_allclose(covariance_KDD[:, 0, 1], [2 / 6, 16 / 20], rtol=1e-9)
    np.testing.assert_allclose(covariance_KDD[:, 0, 0], 1.0, rtol=1e-9)


def test_draws_through_the_factor_have_the_covariance():
    rng = np.random.default_rng(5)
    mixing_DD = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-1.0, 0.3, 0.7]])
    features_BD = rng.normal(size=(400, 3)) @ mixing_DD.T + 3
    statistics = FeatureStatistics.of(features_BD, np.zeros(400, dtype=int), "class_full")
    draws_ND = statistics.mean_KD[0] + rng.normal(size=(200_000, 3)) @ statistics.factor_KDD(1e-3, 0.0)[0].T
    np.testing.assert_allclose(draws_ND.mean(axis=0), features_BD.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(draws_ND.T), np.cov(features_BD.T, ddof=0), atol=0.05)


def test_a_single_image_and_huge_features_still_factor():
    one = FeatureStatistics.of(np.array([[1e8, -1e8, 3.0]]), np.array([0]), "class_full")
    np.testing.assert_allclose(one.factor_KDD(0.1, 2.0)[0], 0.1 * np.eye(3))
    line_BD = np.outer(np.linspace(-1e8, 1e8, 7), [1.0, 1.0, 1.0])
    singular = FeatureStatistics.of(line_BD, np.zeros(7, dtype=int), "class_full")
    assert np.isfinite(singular.factor_KDD(1e-3, 0.0)).all()


@pytest.mark.parametrize("form", ["scalar", "client_diagonal", "class_diagonal"])
def test_the_other_forms_factor_into_their_standard_deviations(form):
    rng = np.random.default_rng(6)
    statistics = FeatureStatistics.of(rng.normal(size=(20, 3)), rng.integers(2, size=20), form)
    factor_KDD = statistics.factor_KDD(0.01, 5.0)
    assert factor_KDD.tolist() == [np.diag(std_D).tolist() for std_D in statistics.std_KD(0.01)]


@every_form
def test_arrays_make_the_round_trip_and_their_bytes_are_counted(form):
    rng = np.random.default_rng(7)
    statistics = FeatureStatistics.of(rng.normal(size=(30, 5)), rng.integers(3, size=30), form)
    arrays = statistics.to_arrays()
    assert_same(FeatureStatistics.from_arrays(arrays, form), statistics, rtol=0)
    scatter_numbers = {"scalar": 1, "client_diagonal": 5, "class_diagonal": 15, "class_full": 75}[form]
    assert sum(array.nbytes for array in arrays["prototypes"].values()) == 8 * (3 + 3 + 15)
    assert arrays["covariance"]["scatter"].nbytes == 8 * scatter_numbers


@every_form
def test_merging_leaves_read_only_parts_alone(form):
    rng = np.random.default_rng(8)
    left, right = (FeatureStatistics.of(rng.normal(size=(6, 2)), rng.integers(2, size=6), form) for _ in range(2))
    for part in (left, right):
        for kind in part.to_arrays().values():
            for array in kind.values():
                array.flags.writeable = False  # As Ray hands them out.
    assert (left + right).num_images == 12


def test_statistics_that_do_not_fit_are_refused():
    statistics = FeatureStatistics.of(np.ones((2, 3)), np.array([0, 1]), "scalar")
    with pytest.raises(ValueError, match="do not merge"):
        statistics.merge(FeatureStatistics.empty(3, "class_full"))
    with pytest.raises(ValueError, match="do not merge"):
        statistics.merge(FeatureStatistics.empty(4, "scalar"))
    with pytest.raises(ValueError, match="one label per row"):
        FeatureStatistics.of(np.ones((2, 3)), np.array([0]), "scalar")
    with pytest.raises(ValueError, match="integers"):
        FeatureStatistics.of(np.ones((1, 3)), np.array([0.5]), "scalar")
    with pytest.raises(ValueError, match="floor must be above 0"):
        statistics.factor_KDD(0.0, 1.0)
    with pytest.raises(ValueError, match=r"scatter of form class_diagonal has shape \(\), not \(2, 3\)"):
        FeatureStatistics.from_arrays(statistics.to_arrays(), "class_diagonal")
    with pytest.raises(ValueError, match="ascend"):
        FeatureStatistics("scalar", np.array([1, 0]), np.array([1, 1]), np.ones((2, 3)), np.zeros(()))
    with pytest.raises(ValueError, match="at least 1"):
        FeatureStatistics("scalar", np.array([0, 1]), np.array([1, 0]), np.ones((2, 3)), np.zeros(()))
