"""One attempt: the order in which its parts open and close, and the status of a run that ends early."""

import errno
import io
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.errors import ClientError, ConfigError, Interrupted
from fedvtc.federation.launch import run_federation
from fedvtc.learning.methods import config_classes
from fedvtc.runtime.device import SharedThreadLimit
from fedvtc.runtime.host import ClientHost
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


def test_a_run_shows_and_keeps_the_report_on_its_data(run, capsys, golden):
    folder = run(Witness()).folder
    # The report is the second line, after the name of the run.
    golden(capsys.readouterr().out.splitlines()[1])
    data = json.loads((folder / "run.json").read_text())["data"]
    assert re.fullmatch("[0-9a-f]{64}", data["hash"])
    assert data["images"] == {"train": 36, "test": 15}
    assert data["classes"] == {name: {"train": 12, "test": 5} for name in "012"}


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

    monkeypatch.setattr(ClientHost, "close", close)
    witness, num_threads = Witness(), torch.get_num_threads()
    with pytest.raises(Interrupted):
        run(witness, "run.name=closing")
    assert RunFolder.open(witness._folder).status == "finished"
    assert torch.get_num_threads() == num_threads


def test_a_folder_that_cannot_be_deleted_hides_no_user_error(tiny_folder, monkeypatch, capsys, keys_of):
    """On NFS, the open `.lock` stays in the folder under another name, so that the folder cannot be deleted."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder, rmdir, failed = tiny_folder("nfs"), os.rmdir, []

    def not_empty(path, **options):
        if failed:
            return rmdir(path, **options)
        failed.append(path)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    words = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", "run.name=nfs"]
    monkeypatch.setattr(os, "rmdir", not_empty)

    assert main(["run", *words, "placement.pool=ray", "cluster.address=127.0.0.1:1"]) == 2

    assert keys_of(capsys.readouterr().err) == ["cluster.address=127.0.0.1:1"]
    assert failed == [folder / "nfs"]
    # The empty folder that is left does not take the name.
    assert main(["run", *words]) == 0


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


def test_letters_that_stdout_lacks_are_printed_as_escapes(tiny_folder, monkeypatch, capsys, recwarn):
    folder = tiny_folder("letters")
    with np.load(folder / "tiny.npz") as arrays:
        np.savez(folder / "named.npz", **arrays, class_names=["猫", "狗", "鸟"])
    words = [*SETTINGS, f"data.path={folder}/named.npz", f"run.output_dir={folder}", "run.name=größe-1"]
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        # A script that prepares no output gets the lines on standard error.
        summary = run_federation(load([], [*words[:-1], "run.name=länge"], methods=config_classes()), plain=True)
        assert [main([*command, *words]) for command in (["run"], ["plan"])] == [0, 0]
        assert main(["list", "runs", str(folder)]) == 0
    printed = output.buffer.getvalue().decode()
    assert RunFolder.open(summary.folder).status == "finished"
    assert "länge: 2 clients" in capsys.readouterr().err
    assert r"gr\xf6\xdfe-1: 2 clients" in printed
    assert r"\u732b" in printed
    assert f"{folder}/gr\\xf6\\xdfe-1\n" in printed


def test_federations_in_threads_of_one_process_compute_as_alone(tiny_folder):
    folder = tiny_folder("threads")
    more = ["method.name=local", "run.rounds=3", "partition.alpha=1", "population.num_clients=3"]
    words = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", *more]

    def run(name, seed):
        config = load([], [*words, f"run.name={name}", f"run.seed={seed}"], methods=config_classes())
        record = run_federation(config, plain=True).record
        return {key: value for key, value in record.items() if key.startswith("test/")}

    alone = [run(f"alone-{seed}", seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(run, ["a", "b", "c"], range(3))) == alone


def test_federations_in_threads_have_one_number_of_threads(golden, keys_of):
    limit, before = SharedThreadLimit(), torch.get_num_threads()
    with limit.held(1):
        with limit.held(1):
            pass
        with ThreadPoolExecutor(1) as other, pytest.raises(ConfigError) as raised:
            other.submit(limit.held(2).__enter__).result()
        assert torch.get_num_threads() == 1
        assert {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"} == {1}
    assert keys_of(raised.value) == ["placement.threads_per_actor"]
    golden(raised.value)
    assert torch.get_num_threads() == before
