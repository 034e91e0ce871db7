"""A run with injected faults ends with the results of an undisturbed run, after a resume.

The most important faults of `benchmarks/chaos.py`, which has all of them, on a federation that takes seconds. Method,
backbone and data are code of a user.
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
OWN = """
import numpy as np
from torch import nn
from torch.nn import functional

from fedvtc.learning.methods.fedvtc import FedVTC


def stripes(path):
    random, labels = np.random.default_rng(0), np.arange(300) % 10
    images = (random.random((300, 8, 8)) * 20 * labels[:, None, None]).astype(np.uint8)
    return {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:], "y_test": labels[200:]}


def net(num_channels, image_size):
    return nn.Sequential(nn.Conv2d(num_channels, 4, 3, 2), nn.ReLU(), nn.Flatten())


class Mine(FedVTC):
    # Trains on a loss whose weight each client keeps, then as FedVTC.
    def client_round(self, client, broadcast):
        weight = client.memory["weight"] = 0.5 * client.memory.get("weight", 1.0)

        def loss(images, labels_B):
            return weight * functional.cross_entropy(client.classifier(images), labels_B)

        with client.phase("own"):
            for batches in client.passes():
                client.fit("classifier", batches, loss=loss)
        return super().client_round(client, broadcast)
"""
SETTING = Setting(
    words=(
        str(ROOT / "conf/experiment/digits.yaml"),
        "data.name=own_chaos:stripes",
        "method.name=own_chaos:Mine",
        "run.rounds=4",
        "population.num_clients=4",
        "population.backbones=[{name: cnn_2x8, share: 0.5}, {name: 'own_chaos:net', share: 0.5}]",
        "partition.images_per_client=30",
        "evaluate.every=2",
        "evaluate.samples_every=2",
        "method.statistics.covariance=class_full",
        "method.generator.aggregation=exchange",
        "method.generator.epochs=1",
        "method.generator.width=4",
        "method.finetune.epochs=1",
        "method.finetune.images_per_class=4",
        "method.finetune.pool=4",
        "method.finetune.latents=client_mixture",
        "method.finetune.real_data=balanced",
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


def test_a_run_that_loses_an_actor_and_its_driver_ends_with_the_results_of_an_undisturbed_run(tmp_path, monkeypatch):
    (tmp_path / "own_chaos.py").write_text(OWN)
    # All processes find the module in the working folder.
    monkeypatch.chdir(tmp_path)
    # Not the folder of pytest, because its path is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        runner = Runner(SETTING, Path(folder))
        runner.undisturbed(1, "placement.pool=inline")
        outcome = runner.disturbed(TRIAL, "disturbed")
        # Two of Ray's agents outlive a killed driver for a minute.
        runner.agents(patience_s=0.0)
    assert outcome.problems == []
    assert (outcome.records, outcome.weights, outcome.num_lost, outcome.num_orphans) == (True, True, 0, 0)
