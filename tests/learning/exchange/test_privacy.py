"""The Gaussian mechanism on statistics: its bound, its noise, and what is made of noised sums."""

import sys
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.learning.exchange.privacy import Mechanism, PoissonSampling, PrivacyConfig, clipped
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form

FORMS = get_args(Form)
every_form = pytest.mark.parametrize("form", FORMS)


def of(*rows):
    return np.array(rows, dtype=np.float64)


@every_form
def test_noised_sums_by_hand(form):
    # (6, 8) has norm 10 and is clipped to (3, 4). The noise of "ones" is one standard deviation, 2 sqrt(3).
    features_ND, labels_N = of((3, 0), (6, 8), (0, 1)), np.array([0, 2, 2])
    mechanism = Mechanism(noise_multiplier=2.0, clip=5.0, num_classes=3)
    count_C, sum_CD, second = mechanism.noised(features_ND, labels_N, form, np.ones)
    std = 2 * np.sqrt(3)
    exact = {
        "scalar": 9 + 25 + 1,
        "client_diagonal": [9 + 9, 16 + 1],
        "class_diagonal": [[9, 0], [0, 0], [9, 17]],
        "class_full": [[[9, 0], [0, 0]], [[0, 0], [0, 0]], [[9, 12], [12, 17]]],
    }
    np.testing.assert_allclose(count_C, of(1, 0, 2) + std)
    np.testing.assert_allclose(sum_CD, of((3, 0), (0, 0), (3, 5)) + 5 * std)
    np.testing.assert_allclose(second, np.array(exact[form]) + 25 * std)


@every_form
def test_the_noise_is_as_strong_as_the_sensitivity_times_the_multiplier(form):
    mechanism = Mechanism(noise_multiplier=0.7, clip=3.0, num_classes=300)
    normal = np.random.default_rng(0).standard_normal
    found = mechanism.noised(np.zeros((0, 20)), np.zeros(0, dtype=int), form, normal)
    expected = 0.7 * np.sqrt(3) * of(1, 3, 9)
    for array, std in zip(found, expected, strict=True):
        if array.size >= 300:
            assert np.std(array) == pytest.approx(std, rel=0.15 if array.size < 1000 else 0.03)
            assert abs(np.mean(array)) < 4 * std / np.sqrt(array.size / 2)
    if form == "class_full":
        assert np.array_equal(found[2], found[2].transpose(0, 2, 1))


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(1, 8),
    size=st.integers(1, 5),
    clip=st.floats(0.01, 100),
    scale=st.floats(1e-3, 1e3),
)
def test_an_image_changes_the_scaled_sums_by_at_most_the_root_of_three(form, seed, num_images, size, clip, scale):
    rng = np.random.default_rng(seed)
    features_ND, labels_N = scale * rng.normal(size=(num_images, size)), rng.integers(3, size=num_images)
    assert np.linalg.norm(clipped(features_ND, clip), axis=1).max() <= clip * (1 + 1e-12)
    mechanism = Mechanism(noise_multiplier=1.0, clip=clip, num_classes=3)

    def scaled(keep_N):
        count_C, sum_CD, second = mechanism.noised(features_ND[keep_N], labels_N[keep_N], form, np.zeros)
        if form == "class_full":
            second = second[:, *np.tril_indices(size)]
        return np.concatenate([count_C, sum_CD.ravel() / clip, second.ravel() / clip**2])

    change = scaled(np.arange(num_images)) - scaled(np.arange(1, num_images))
    assert np.linalg.norm(change) <= np.sqrt(3) * (1 + 1e-9)


@pytest.mark.parametrize("form", ["scalar", "client_diagonal"])
def test_a_class_that_is_left_out_leaves_the_pooled_spread_too(form):
    # Features of 1 and -1. Class 0 has 15 of each: its mean is 0, its scatter 30. Class 1, with 5, is left out: with
    # a multiplier of 2 counts below 3 * 2 sqrt(3) = 10.4 are taken for noise.
    features_ND, labels_N = of(*[[1.0]] * 15, *[[-1.0]] * 15, *[[1.0]] * 5), np.array([0] * 30 + [1] * 5)
    found = Mechanism(noise_multiplier=2.0, clip=1.0, num_classes=2).release(features_ND, labels_N, form, np.zeros)
    assert found.classes_K.tolist() == [0]
    np.testing.assert_allclose(found.scatter, 30)


@pytest.mark.parametrize("form", ["scalar", "client_diagonal"])
def test_the_pooled_variance_of_many_noised_clients_is_no_larger_than_that_of_normalized_features(form):
    rng, parts = np.random.default_rng(0), []
    labels_N = np.repeat(np.arange(100), 5)
    for _ in range(20):
        features_ND = rng.normal(size=(500, 64))
        features_ND = 0.7 * rng.normal(size=(100, 64))[labels_N] + 0.7 * features_ND
        features_ND *= 8 / np.linalg.norm(features_ND, axis=1, keepdims=True)
        mechanism = Mechanism(noise_multiplier=2.0, clip=8.0, num_classes=100)
        parts.append(mechanism.release(features_ND, labels_N, form, rng.standard_normal))
    merged = sum(parts[1:], parts[0])
    # The features have a mean square of 1.
    assert np.mean(merged.scatter) / merged.count_K.sum() / (64 if form == "scalar" else 1) < 1.1


@every_form
def test_without_noise_and_clipping_statistics_are_exact(form):
    rng = np.random.default_rng(4)
    features_ND, labels_N = rng.normal(size=(40, 3)), 2 * rng.integers(3, size=40)
    mechanism = Mechanism(noise_multiplier=0.0, clip=100.0, num_classes=6)
    released = mechanism.release(features_ND, labels_N, form, rng.standard_normal)
    exact = FeatureStatistics.of(features_ND, labels_N, form)
    assert released.classes_K.tolist() == exact.classes_K.tolist()
    assert released.count_K.tolist() == exact.count_K.tolist()
    np.testing.assert_allclose(released.mean_KD, exact.mean_KD, rtol=1e-10)
    np.testing.assert_allclose(released.scatter, exact.scatter, rtol=1e-8, atol=1e-8)


@every_form
@pytest.mark.parametrize("noise_multiplier", [0.3, 5.0])
def test_released_statistics_are_usable_whatever_the_noise(form, noise_multiplier):
    rng = np.random.default_rng(1)
    mechanism = Mechanism(noise_multiplier, clip=2.0, num_classes=4)
    for _ in range(20):
        released = mechanism.release(rng.normal(size=(30, 5)), rng.integers(4, size=30), form, rng.standard_normal)
        assert len(released.classes_K) >= 1
        assert np.linalg.norm(released.mean_KD, axis=1).max() <= 2.0 + 1e-9
        assert np.isfinite(released.factor_KDD(floor=0.05, prior_count=10.0)).all()
        if form == "class_full":
            assert np.linalg.eigvalsh(released.scatter).min() > -1e-9
        else:
            assert released.scatter.min() >= 0


def test_a_negative_variance_becomes_zero_and_the_rest_of_the_matrix_stays():
    # Scatter (4, 0; 0, 1) around a mean of 0; the noise takes 1 from the diagonal and 2.5 from the corner.
    noise = {(1,): np.zeros(1), (1, 2): np.zeros((1, 2)), (1, 2, 2): of(((-1, 9), (-2.5, -1)))}
    mechanism = Mechanism(noise_multiplier=1 / np.sqrt(3), clip=1.0, num_classes=1)
    features_ND = of((1, 0), (-1, 0), (1, 0), (-1, 0), (0, 0.5), (0, -0.5), (0, 0.5), (0, -0.5))
    released = mechanism.release(features_ND, np.zeros(8, dtype=int), "class_full", noise.__getitem__)
    # (3, -2.5; -2.5, 0) has the eigenvalues 1.5 +- sqrt(8.5); only the larger one is kept.
    large = 1.5 + np.sqrt(8.5)
    vector = of(2.5, 3 - large)
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(released.scatter[0], large * np.outer(vector, vector), atol=1e-9)


def test_classes_of_noise_alone_are_not_sent():
    mechanism = Mechanism(noise_multiplier=2.0, clip=1.0, num_classes=3)
    # Three standard deviations of a count are 10.4: 11 images are sent, and 10 are not.
    labels_N = np.repeat([0, 1], [11, 10])
    assert mechanism.release(np.zeros((21, 2)), labels_N, "scalar", np.zeros).classes_K.tolist() == [0]
    few = mechanism.release(np.zeros((3, 2)), np.array([0, 1, 1]), "scalar", np.zeros)
    assert (few.classes_K.tolist(), few.count_K.tolist()) == ([1], [2])


def test_features_of_unit_variance_have_the_norm_of_the_default_clip():
    assert Mechanism.of(PrivacyConfig(1.0), num_classes=2, feature_size=64).clip == 8.0
    assert Mechanism.of(PrivacyConfig(1.0, clip=2.5), num_classes=2, feature_size=64).clip == 2.5


@pytest.mark.parametrize(("num_images", "rate", "num_batches"), [(400, 0.08, 13), (64, 0.5, 2), (20, 1.0, 1)])
def test_poisson_batches_have_the_mean_size_of_the_key(num_images, rate, num_batches):
    sampling = PoissonSampling(num_images, 32)
    assert (sampling.rate, sampling.num_batches) == (rate, num_batches)


def test_noise_without_opacus_or_on_gradients_alone_is_refused(monkeypatch, golden):
    assert PrivacyConfig().problems() == []
    assert PrivacyConfig(noise_multiplier=1.0, training_noise=1.0).problems() == []
    (alone,) = PrivacyConfig(training_noise=1.0).problems()
    monkeypatch.setitem(sys.modules, "opacus", None)
    (absent,) = PrivacyConfig(noise_multiplier=1.0).problems()
    golden(f"{alone}\n{absent}")
    assert PrivacyConfig().problems() == []
