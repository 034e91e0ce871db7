"""One attempt: the order in which its parts open and close, and the status of a run that ends early."""

import os
import sys

import pytest
import torch

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.errors import ClientError, Interrupted
from fedvtc.federation.launch import run_federation
from fedvtc.learning.methods import config_classes
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.run_status import RunStatus
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
    """Notes each call, and True if the pool is open: an open inline pool limits this process to one thread."""

    def __init__(self, error=None, last_error=None):
        self.calls, self._error, self._last_error = [], error, last_error

    def start(self, run):
        self._folder = run.folder
        self._note("start")

    def log(self, record, clients):
        self._note(record["phase"])
        if self._error:
            raise self._error

    def finish(self, status):
        self._note(status)
        self.checkpoints = sorted(path.name for path in (self._folder / "checkpoints").glob("*"))
        if self._last_error:
            raise self._last_error

    def _note(self, call):
        self.calls.append((call, torch.get_num_threads() == 1))


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


def test_the_pool_closes_before_trackers_finish(run):
    witness = Witness()
    run(witness)
    assert witness.calls == [("start", True), ("round", True), ("final", True), ("finished", False)]
    assert witness.checkpoints == ["final", "round_000001"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError(), "failed", "ValueError"),
        (ValueError("a\nb"), "failed", "ValueError: a"),
        (ClientError(0, 1, "train", "the loss is nan"), "failed", "client 0, round 1, train: the loss is nan"),
        (Interrupted(15), "interrupted", "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    ],
)
def test_trackers_and_run_json_get_the_status_of_a_run_that_ends_early(run, error, status, reason):
    witness = Witness(error)
    with pytest.raises(type(error)):
        run(witness)
    assert witness.calls == [("start", True), ("round", True), (status, False)]
    assert RunFolder.open(witness._folder).true_status == RunStatus(status, reason)


@pytest.mark.parametrize(("error", "status"), [(Interrupted(15), "finished"), (ValueError(), "failed")])
def test_a_signal_while_trackers_finish_leaves_a_finished_run(run, capsys, error, status):
    witness = Witness(last_error=error)
    with pytest.raises(type(error)):
        run(witness, "run.name=whole")
    assert RunFolder.open(witness._folder).status == status
    assert ("resume with: fedvtc resume" in capsys.readouterr().out) == (status == "failed")


def test_a_signal_while_the_pool_closes_leaves_a_finished_run(run, monkeypatch):
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
def test_a_run_finishes_without_a_working_stdout(tiny_folder, monkeypatch, capsys, output):
    folder = tiny_folder("attempt")
    words = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", "run.name=no-output"]
    with output() as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        assert main(["run", *words]) == 0
        assert main(["resume", str(folder / "no-output"), "run.rounds=2"]) == 0
    assert len((folder / "no-output" / "metrics.jsonl").read_text().splitlines()) == 3
    assert RunFolder.open(folder / "no-output").status == "finished"
    printed = capsys.readouterr().err
    assert "round 1/1" in printed
    assert "Traceback" not in printed
