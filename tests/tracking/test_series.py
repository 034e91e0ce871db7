from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config.operation import TrackingConfig
from fedvtc.config.schema import Config, EvaluateConfig
from fedvtc.tracking.series import TOTAL_MB, Series, numbers, sample_picture, shows_clients


def test_numbers_are_the_finite_values_of_a_record():
    record = {"round": 2, "phase": "round", "a": np.float64(0.5), "b": float("inf"), "c": None, "incidents": ["x"]}
    assert numbers(record) == {"round": 2, "a": 0.5}


def test_megabytes_add_up_over_rounds_and_the_final_record():
    series = Series()
    first = {"round": 1, "phase": "round", "bytes/up/generator": 2_000_000, "bytes/up/covariance": 500_000}
    assert series.take(first)[TOTAL_MB] == 2.5
    assert series.take({"round": 2, "phase": "round", "bytes/down/generator": 1_000_000})[TOTAL_MB] == 3.5
    last = series.take({"round": 2, "phase": "final", "bytes/down/generator": 250_000})
    assert last == {"final/round": 2, "final/bytes/down/generator": 250_000, "final/bytes/total_mb": 3.75}


@pytest.mark.parametrize(
    ("evaluate_every", "clients_every", "shown"),
    [(1, 10, [10, 20]), (5, 10, [10, 20]), (3, 10, [12, 21]), (5, 1, [5, 10, 15, 20, 25]), (10, 3, [10, 20])],
)
def test_clients_are_shown_at_the_first_evaluation_that_is_due(evaluate_every, clients_every, shown):
    config = replace(
        Config(), evaluate=EvaluateConfig(every=evaluate_every), tracking=TrackingConfig(clients_every=clients_every)
    )
    rounds = range(evaluate_every, 26, evaluate_every)
    assert [round for round in rounds if shows_clients(config, {"round": round, "phase": "round"})] == shown
    assert shows_clients(config, {"round": 7, "phase": "final"})


def test_a_sample_picture_has_a_row_per_class():
    images_NCHW = np.zeros((6, 1, 8, 8), dtype=np.uint8)
    two, three = (
        sample_picture(images_NCHW, labels, ["a", "b", "c"]) for labels in ([0, 0, 0, 2, 2, 2], [0, 0, 1, 1, 2, 2])
    )
    assert three.height > two.height
    assert three.width < two.width
