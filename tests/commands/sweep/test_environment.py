"""What the process of a trial has of who started the sweep."""

import os
import subprocess
import sys

import pytest
from ray import cloudpickle

from fedvtc.commands.sweep import load_sweep, tuning
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import settle_in

SET = {
    "FEDVTC_DATA": "/mnt/data",
    "WANDB_BASE_URL": "https://wandb.example.com",
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "us",
    "WANDB_RUN_GROUP": "one",
    "WANDB_JOB_TYPE": "sweep",
    "WANDB_NAME": "all",
}


@pytest.fixture
def tasks(write, monkeypatch):
    """A function: what the process of each trial is told, under these variables."""
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1]}")))

    def told(variables):
        for name in SET:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return tuning._tasks(folder)

    return told


def test_a_trial_has_the_variables_of_who_started_the_sweep(tasks, tmp_path, monkeypatch):
    found = tasks(SET)
    assert list(found) == ["seed0", "seed1"]

    # As if on another node.
    for name in SET:
        monkeypatch.setenv(name, "of the node")
    monkeypatch.chdir("/")
    settle_in(cloudpickle.loads(cloudpickle.dumps(found["seed1"])))

    assert {name: os.environ[name] for name in SET} == SET
    assert os.getcwd() == str(tmp_path)


def test_what_is_not_set_stays_as_the_node_has_it(tasks, monkeypatch):
    found = tasks({"WANDB_MODE": "offline"})
    monkeypatch.setenv("FEDVTC_DATA", "/of/the/node")

    settle_in(found["seed0"])

    assert found["seed0"].environment == {"WANDB_MODE": "offline"}
    assert os.environ["FEDVTC_DATA"] == "/of/the/node"


def test_no_secret_gets_into_the_files_of_tune(tasks):
    secrets = {"WANDB_API_KEY": "abc123", "WANDB_BASE_URL": "https://me:abc123@wandb.example.com"}

    (found, _) = tasks(SET | secrets).values()

    assert set(found.environment) == set(SET) - {"WANDB_BASE_URL"}
    assert b"abc123" not in cloudpickle.dumps(found)


def test_the_names_of_the_variables_load_nothing_heavy():
    code = "import sys, fedvtc.commands.sweep.trial_process; print({'ray', 'torch', 'wandb'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
