"""The environment of a trial's process, copied from the process that started the sweep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from fedvtc.commands.sweep import experiment, load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import apply_environment, output_to
from fedvtc.reporting.lines import say

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
    """A function: the tasks of all trials, made under these environment variables."""
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1]}")))

    def make(variables):
        for name in SET:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return experiment.trial_tasks(folder)

    return make


def test_a_trial_copies_folder_and_variables_of_the_sweep(tasks, tmp_path, monkeypatch):
    found = tasks(SET)
    assert list(found) == ["seed0", "seed1"]

    # As on another node.
    for name in SET:
        monkeypatch.setenv(name, "of the node")
    monkeypatch.chdir("/")
    apply_environment(cloudpickle.loads(cloudpickle.dumps(found["seed1"])))

    assert {name: os.environ[name] for name in SET} == SET
    assert os.getcwd() == str(tmp_path)


def test_a_variable_that_the_sweep_lacks_keeps_the_value_of_the_node(tasks, monkeypatch):
    found = tasks({"WANDB_MODE": "offline"})
    monkeypatch.setenv("FEDVTC_DATA", "/of/the/node")

    apply_environment(found["seed0"])

    assert found["seed0"].environment == {"WANDB_MODE": "offline"}
    assert os.environ["FEDVTC_DATA"] == "/of/the/node"


def test_tasks_contain_no_secrets(tasks):
    secrets = {"WANDB_API_KEY": "abc123", "WANDB_BASE_URL": "https://me:abc123@wandb.example.com"}

    (found, _) = tasks(SET | secrets).values()

    assert set(found.environment) == set(SET) - {"WANDB_BASE_URL"}
    assert b"abc123" not in cloudpickle.dumps(found)


def test_importing_the_trial_process_loads_nothing_heavy():
    code = "import sys, fedvtc.commands.sweep.trial_process; print({'ray', 'torch', 'wandb'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_log_on_a_full_disk_does_not_end_the_trial():
    with output_to(Path("/dev/full")):
        say("a line")
