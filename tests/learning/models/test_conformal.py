"""Numbers worked out by hand."""

import numpy as np
import pytest

from fedvtc.learning.models.conformal import (
    LabelSets,
    agreement,
    calibration_scores,
    fit_temperature,
    set_sizes,
    softmax,
)

PROBABILITIES = np.array([[0.3, 0.5, 0.2]])


def test_scores_sum_the_probabilities_up_to_the_label():
    # Label 0 has rank 2: 0.5 + 0.25 * 0.3 + 0.1 * (2 - 1).
    score = calibration_scores(PROBABILITIES, np.array([0]), np.array([0.25]), penalty=0.1, free_labels=1)
    assert score == pytest.approx([0.675])
    # Label 1 has rank 1 and no penalty: 0.25 * 0.5.
    score = calibration_scores(PROBABILITIES, np.array([1]), np.array([0.25]), penalty=0.1, free_labels=1)
    assert score == pytest.approx([0.125])


def test_a_set_ends_with_the_label_that_passes_the_threshold():
    # 0.5, 0.8 + 0.1, 1.0 + 0.2: two are at most 0.95.
    assert set_sizes(np.array([[0.5, 0.9, 1.2]]), 0.95).tolist() == [3]
    assert set_sizes(np.array([[0.5, 0.9, 1.2]]), 2.0).tolist() == [3]
    assert set_sizes(np.array([[0.5, 0.9, 1.2]]), 0.1).tolist() == [1]


@pytest.mark.parametrize(
    ("threshold", "uniform", "expected"),
    [
        # The third label has room 0.95 - 0.8 - 0.2 < 0 and is always dropped.
        (0.95, 0.0, [True, True, False]),
        # The third label has room 1.1 - 0.8 - 0.2 = 0.1, half of its probability.
        (1.1, 0.4, [True, True, True]),
        (1.1, 0.6, [True, True, False]),
        (0.1, 0.9, [False, True, False]),
    ],
)
def test_the_last_label_is_dropped_at_random_and_no_set_is_empty(threshold, uniform, expected):
    sets = LabelSets(1.0, threshold, penalty=0.1, free_labels=1)
    assert sets.of(np.log(PROBABILITIES), np.array([uniform])).tolist() == [expected]


def test_sets_hold_the_label_as_often_as_promised():
    rng = np.random.default_rng(0)
    logits_NC, uniform_N = rng.normal(size=(4000, 10)), rng.random(4000)
    labels_N = (softmax(logits_NC).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    keys = {"error_rate": 0.1, "penalty": 0.1, "free_labels": 2, "batch_size": 100}
    sets = LabelSets.calibrated(logits_NC[:2000], labels_N[:2000], uniform_N[:2000], **keys)
    found_NC = sets.of(logits_NC[2000:], uniform_N[2000:])
    assert found_NC[np.arange(2000), labels_N[2000:]].mean() == pytest.approx(0.9, abs=0.02)
    assert found_NC.sum(axis=1).min() >= 1


def test_the_temperature_descends_by_hand_and_stays_positive():
    # z = (2, 0), y = 0: p_0 = sigmoid(2 / 1.3) = 0.8232; slope (2 - 1.6464) / 1.69 = 0.2092; less than 0.01 a step.
    assert fit_temperature(np.array([[2.0, 0.0]]), np.array([0]), batch_size=1) == pytest.approx(1.3 - 0.002092, 1e-5)
    assert fit_temperature(np.array([[900.0, 0.0]] * 9), np.array([1] * 9), batch_size=1) > 0
    overconfident = np.array([[20.0, 0.0]] * 40), np.array([0] * 30 + [1] * 10)
    assert fit_temperature(*overconfident, batch_size=4) > 1.3


@pytest.mark.parametrize(
    ("private", "proxy", "expected"),
    [([False, True, False], [True, True, False], 0.5), ([True, True, False], [True, False, False], 1.0)],
)
def test_agreement_by_hand(private, proxy, expected):
    assert agreement(np.array([private]), np.array([proxy])) == expected
    assert agreement(np.array([private, proxy]), np.array([proxy, proxy])) == (expected + 1.0) / 2


def test_logits_far_apart_give_one_label():
    sets = LabelSets(0.05, 0.9, penalty=0.0, free_labels=1)
    assert sets.of(np.array([[1e4, 0.0, -1e4]]), np.array([0.5])).tolist() == [[True, False, False]]
