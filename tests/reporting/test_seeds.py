"""Statistics over seeds."""

import math

import pytest

from fedvtc.reporting.seeds import interval, mean_and_std, mean_ranks, paired_difference


def test_mean_and_sample_deviation_worked_by_hand():
    # Deviations -0.1, 0, 0.1: squares add up to 0.02, by n - 1 = 2 that is 0.01.
    assert mean_and_std([0.5, 0.6, 0.7]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert mean_and_std([0.5]) == (0.5, None)
    assert mean_and_std([]) == (None, None)


def test_the_interval_of_a_mean_is_that_of_the_t_distribution():
    # The 97.5 % quantile of Student's t with two degrees of freedom is 4.302653.
    half = 4.302653 * 0.1 / 3**0.5
    assert interval([0.5, 0.6, 0.7]) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert interval([0.25, 0.25]) == (0.25, 0.25)
    assert interval([0.5]) is None


def test_differences_are_paired_by_seed():
    ours = {"2": 0.9, "0": 0.6, "1": 0.8}
    found = paired_difference(ours, {"0": 0.5, "1": 0.6, "7": 0.0})

    # Differences 0.1 and 0.2 of seeds 0 and 1; the quantile with one degree of freedom is 12.706205.
    half = 12.706205 * 0.1 / 2
    assert (found.num_pairs, found.mean) == (2, pytest.approx(0.15))
    assert (found.low, found.high) == (pytest.approx(0.15 - half), pytest.approx(0.15 + half))
    single = paired_difference(ours, {"1": 0.5})
    assert (single.num_pairs, single.low, single.high) == (1, None, None)
    assert paired_difference(ours, {"7": 0.0}) is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_has_no_deviation_and_the_last_rank(value):
    mean, std = mean_and_std([0.5, value])
    assert (str(mean), std) == (str(value), None)
    assert math.isnan(mean_and_std([math.inf, -math.inf])[0])
    assert paired_difference({"0": value}, {"0": 0.5}).low is None
    assert mean_ranks([[value, 0.5, 0.7]], higher_is_better=True) == [3, 2, 1]
    assert mean_ranks([[value, 0.5, 0.7]], higher_is_better=False) == [3, 1, 2]


def test_ranks_are_means_over_blocks_and_ties_share_a_rank():
    assert mean_ranks([[0.9, 0.5, 0.7], [0.9, 0.9, 0.1]], higher_is_better=True) == [1.25, 2.25, 2.5]
    assert mean_ranks([[9.0, 5.0]], higher_is_better=False) == [2.0, 1.0]
