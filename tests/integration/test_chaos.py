"""Runs with one injected fault end with the results of an undisturbed run, after a resume if needed.

The most important kinds of `benchmarks/chaos.py`, which has all of them, on a federation that takes seconds.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from faults.kinds import KINDS
from faults.runs import Runner
from faults.trial import Setting

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SETTING = Setting(
    words=(
        str(ROOT / "conf/experiment/digits.yaml"),
        str(ROOT / "conf/method/fedvtc_plus.yaml"),
        "run.rounds=4",
        "population.num_clients=4",
        "population.backbones=[{name: cnn_2x8, share: 0.5}, {name: cnn_3x16, share: 0.5}]",
        "partition.images_per_client=30",
        "evaluate.every=2",
        "evaluate.samples_every=2",
        "method.generator.width=4",
        "method.finetune.epochs=1",
        "method.finetune.images_per_class=4",
    ),
    rounds=4,
    num_clients=4,
    evaluate_every=2,
)


@pytest.fixture(scope="module")
def runner():
    """A runner that has run the federation undisturbed, on one actor."""
    # Not the folder of pytest, because its path is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        runner = Runner(SETTING, Path(folder))
        runner.undisturbed(1)
        yield runner
        assert runner.agents() == {}


@pytest.mark.parametrize(
    ("kind", "num_actors"),
    # The killed driver comes first, because two of Ray's agents outlive a killed driver for a minute.
    [
        ("driver killed: server's half", 1),
        ("actor killed: generator", 2),
    ],
)
def test_results_after_a_fault_equal_those_of_an_undisturbed_run(runner, kind, num_actors):
    trial = replace(KINDS[kind](kind, SETTING, Random(f"3/{kind}")), num_actors=num_actors)
    outcome = runner.disturbed(trial, str(list(KINDS).index(kind)))
    assert outcome.problems == []
    assert (outcome.records, outcome.weights, outcome.num_lost, outcome.num_orphans) == (True, True, 0, 0)
