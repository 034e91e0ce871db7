"""The numbers of a run, from records written by hand."""

import pytest

from fedvtc.reporting.comparison.metrics import metrics_of
from fedvtc.reporting.run_numbers import numbers_of

ROUNDS = [
    {"round": 1, "phase": "round", "privacy/epsilon": 1.5, "loss/train": 0.9, "memory/train": 7, "bytes/up/head": 3},
    {"round": 2, "phase": "round", "privacy/epsilon": 2.25, "loss/train": 0.4, "memory/train": 5, "bytes/up/head": 4},
]
FINAL = {"round": 2, "phase": "final", "privacy/epsilon": 3.0, "memorisation/ratio": 0.98, "memorisation/share": 0.1}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (ROUNDS, {"privacy/epsilon": 2.25, "loss/train": 0.4}),
        ([*ROUNDS, FINAL], {"privacy/epsilon": 3.0, "memorisation/ratio": 0.98, "memorisation/share": 0.1}),
    ],
    ids=["running", "finished"],
)
def test_losses_and_the_measures_of_privacy_are_the_newest_and_bytes_are_summed(records, expected):
    numbers = numbers_of(records)
    assert {name: numbers[name] for name in expected} == expected
    assert (numbers["bytes/up"], numbers["bytes/up/head"], numbers["memory/train"]) == (7, 7, 7)


def test_the_best_generated_images_are_far_from_training_images_and_the_best_epsilon_is_small():
    names = ["test/accuracy/mean", "memorisation/ratio", "memorisation/share", "privacy/epsilon", "cpu/total"]
    assert [metric.higher_is_better for metric in metrics_of(names, None)] == [True, True, False, False, False]
