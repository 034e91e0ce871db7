"""A run with injected faults ends with the results of an undisturbed run, after a resume.

The most important faults of `benchmarks/chaos.py`, which has all of them, on a federation that takes seconds.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from faults.kinds import KINDS, both
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
        # The fault hits the training of a generator, which joint training does together with the classifier's.
        "method.generator.training=alternating",
        "method.generator.epochs=1",
        "method.generator.width=4",
        "method.finetune.epochs=1",
        "method.finetune.images_per_class=4",
        "method.finetune.pool=4",
    ),
    rounds=4,
    num_clients=4,
    evaluate_every=2,
)


# The actor dies first. One actor instead of two, which would start five times in all; test_nodes.py has a run of two
# actors that loses one of them.
# The states of idle clients lie on disk, and those of the undisturbed run in memory.
FAULTS = both(KINDS["actor killed: generator"], KINDS["driver killed: server's half"])
TRIAL = FAULTS("both", SETTING, Random(1))
TRIAL = replace(TRIAL, num_actors=1, overrides=(*TRIAL.overrides, "placement.client_bytes_per_actor=1"))


def test_a_run_that_loses_an_actor_and_its_driver_ends_with_the_results_of_an_undisturbed_run():
    # Not the folder of pytest, because its path is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        runner = Runner(SETTING, Path(folder))
        runner.undisturbed(1, "placement.pool=inline")
        outcome = runner.disturbed(TRIAL, "disturbed")
        # Two of Ray's agents outlive a killed driver for a minute.
        runner.agents(patience_s=0.0)
    assert outcome.problems == []
    assert (outcome.records, outcome.weights, outcome.num_lost, outcome.num_orphans) == (True, True, 0, 0)
