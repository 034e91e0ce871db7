"""What an attempt holds, and for how long."""

import os
import sys

import pytest
import torch

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.errors import Interrupted
from fedvtc.federation.launch import run_federation
from fedvtc.learning.methods import config_classes
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking import Tracker

SETTINGS = (
    "placement.pool=inline",
    "placement.threads_per_actor=1",
    "run.rounds=1",
    "data.name=npz",
    "partition.alpha=100",
    "population.num_clients=2",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "population.feature_size=6",
    "method.name=local",
    "checkpoint.every=1",
)


class Witness(Tracker):
    """Notes whether the pool is open, as it is where this process is held to the one thread of an actor."""

    def __init__(self, error=None, last_error=None):
        self.heard, self._error, self._last_error = [], error, last_error

    def start(self, run):
        self._folder = run.folder
        self._hear("start")

    def log(self, record, clients):
        self._hear(record["phase"])
        if self._error:
            raise self._error

    def finish(self, status):
        self._hear(status)
        self.checkpoints = sorted(path.name for path in (self._folder / "checkpoints").glob("*"))
        if self._last_error:
            raise self._last_error

    def _hear(self, what):
        self.heard.append((what, torch.get_num_threads() == 1))


@pytest.fixture
def run(tiny_folder):
    def start(witness, *overrides):
        folder = tiny_folder("attempt")
        words = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", *overrides]
        return run_federation(load([], words, methods=config_classes()), plain=True, trackers=[witness])

    num_before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield start
    torch.set_num_threads(num_before)


def test_nobody_holds_the_pool_while_trackers_finish(run):
    witness = Witness()
    run(witness)
    assert witness.heard == [("start", True), ("round", True), ("final", True), ("finished", False)]
    assert witness.checkpoints == ["final", "round_000001"]


@pytest.mark.parametrize(("error", "status"), [(ValueError(), "failed"), (Interrupted(2), "interrupted")])
def test_trackers_hear_how_a_run_ended_that_did_not_end_well(run, error, status):
    witness = Witness(error)
    with pytest.raises(type(error)):
        run(witness)
    assert witness.heard == [("start", True), ("round", True), (status, False)]


@pytest.mark.parametrize(("error", "status"), [(Interrupted(15), "finished"), (ValueError(), "failed")])
def test_who_breaks_off_the_last_wait_of_a_tracker_has_a_run_that_is_whole(run, capsys, error, status):
    witness = Witness(last_error=error)
    with pytest.raises(type(error)):
        run(witness, "run.name=whole")
    assert RunFolder.open(witness._folder).status == status
    assert ("go on with: fedvtc resume" in capsys.readouterr().out) == (status == "failed")


def test_who_breaks_off_the_end_of_the_pool_has_a_run_that_is_whole(run, monkeypatch):
    def close(self):
        raise Interrupted(15)

    monkeypatch.setattr(InlinePool, "close", close)
    witness = Witness()
    with pytest.raises(Interrupted):
        run(witness, "run.name=closing")
    assert RunFolder.open(witness._folder).status == "finished"


def full():
    return open("/dev/full", "w")


def unread():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("output", [full, unread])
def test_a_run_outlives_its_log(tiny_folder, monkeypatch, capsys, output):
    folder = tiny_folder("attempt")
    words = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", "run.name=unheard"]
    with output() as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        assert main(["run", *words]) == 0
        assert main(["resume", str(folder / "unheard"), "run.rounds=2"]) == 0
    assert len((folder / "unheard" / "metrics.jsonl").read_text().splitlines()) == 3
    assert RunFolder.open(folder / "unheard").status == "finished"
    told = capsys.readouterr().err
    assert "round 1/1" in told
    assert "Traceback" not in told
