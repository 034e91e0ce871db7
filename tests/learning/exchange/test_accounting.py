"""Epsilon against figures that are known from elsewhere."""

import math

import numpy as np
import pytest

from fedvtc.learning.exchange.accounting import GaussianUse, PrivacyLoss, epsilon


def by_formula(noise_multiplier, num, delta):
    """The conversion of Canonne, Kamath and Steinke (2020) of the Renyi divergence a / (2 sigma^2), over all orders."""
    order = 1 + np.geomspace(1e-3, 1e3, 100_000)
    divergence = num * order / (2 * noise_multiplier**2)
    return np.min(divergence + np.log1p(-1 / order) - (math.log(delta) + np.log(order)) / (order - 1))


@pytest.mark.parametrize(("noise_multiplier", "num"), [(1.0, 1), (4.0, 11), (0.5, 1)])
def test_epsilon_of_statistics_is_that_of_the_formula(noise_multiplier, num):
    found = epsilon([GaussianUse(noise_multiplier, 1.0, num)], 1e-5)
    assert found == pytest.approx(by_formula(noise_multiplier, num, 1e-5), rel=1e-3)


@pytest.mark.parametrize(("noise_multiplier", "epochs", "published"), [(1.3, 20, 1.34), (0.7, 70, 8.68)])
def test_epsilon_of_dp_sgd_is_a_little_below_the_published_bound(noise_multiplier, epochs, published):
    # Bu et al., "Deep Learning with Gaussian Differential Privacy", 2020, Figure 4: batches of 256 of 60,000 images,
    # delta 1e-5; their conversion of the moments accountant is looser.
    steps = GaussianUse(noise_multiplier, 256 / 60_000, epochs * 60_000 // 256)
    assert 0.75 * published < epsilon([steps], 1e-5) <= published * 1.005


def test_uses_add_up_like_squares():
    together = epsilon([GaussianUse(3.0, 1.0, 4), GaussianUse(3.0, 1.0, 5)], 1e-5)
    assert together == pytest.approx(epsilon([GaussianUse(1.0, 1.0, 1)], 1e-5))


@pytest.mark.parametrize(
    ("noise_multiplier", "low", "high"), [(0.0, math.inf, math.inf), (0.001, 1e5, 1e6), (1e3, 0, 0.01)]
)
def test_extreme_noise_has_an_extreme_epsilon_and_no_warning(noise_multiplier, low, high):
    assert low <= epsilon([GaussianUse(noise_multiplier, 1.0, 1)], 1e-5) <= high


def test_the_line_of_a_plan_says_what_epsilon_covers(golden):
    losses = [PrivacyLoss(7.912, 1e-5, covers_training=covers) for covers in (True, False)]
    golden("\n".join(line for loss in losses for line in loss.lines()))
    assert [loss.record() for loss in losses] == [{"privacy/epsilon": 7.912}, {"privacy/epsilon_statistics": 7.912}]
