import csv
import json
import math
import os
import re

import numpy as np
import pytest
import yaml

from fedvtc.config.schema import Config
from fedvtc.errors import RunFolderError
from fedvtc.metrics import CLIENT_METRICS
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.files import CLIENT_COLUMNS, CsvTracker, JsonlTracker, RunFolder

CONFIG = {"run": {"name": "a", "seed": 3}, "training": {"optimizer": {"lr": 1e-5}}}


@pytest.fixture
def run(tmp_path):
    return RunInfo("abc", "run", tmp_path, Config(), {}, np.ones((2, 2), dtype=np.int64), ["cnn", "vit"])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_folder_describes_its_run(tmp_path):
    folder = RunFolder.create(tmp_path / "deep" / "outputs", "a", CONFIG, gpus=["H200"])
    description = json.loads((folder.path / "run.json").read_text())
    assert folder.path == tmp_path / "deep" / "outputs" / "a"
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == CONFIG
    assert re.fullmatch("[0-9a-f]{8}", folder.id)
    assert {key: description[key] for key in ("id", "name", "status")} == {
        "id": folder.id,
        "name": "a",
        "status": "running",
    }
    assert description["attempts"][0]["pid"] == os.getpid()
    assert description["versions"]["numpy"] == np.__version__
    assert description["hardware"]["cpus"] == os.cpu_count()
    assert description["hardware"]["memory_bytes"] > 2**28
    assert description["hardware"]["gpus"] == ["H200"]


def test_status_is_replaced_and_nothing_is_left_beside(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    before = json.loads((folder.path / "run.json").read_text())
    folder.set_status("finished")
    after = json.loads((folder.path / "run.json").read_text())
    assert after.pop("ended") >= before["created"]
    assert after == before | {"status": "finished"}
    assert {path.name for path in folder.path.iterdir()} == {"run.json", "config.yaml"}


def test_a_run_is_never_overwritten(tmp_path):
    first = RunFolder.create(tmp_path, "a", CONFIG)
    before = {path: path.read_bytes() for path in first.path.iterdir()}
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create(tmp_path, "a", CONFIG)
    assert str(caught.value) == f"{tmp_path}/a: already holds a run. Choose another run.name, or leave it out."
    assert {path: path.read_bytes() for path in first.path.iterdir()} == before
    (tmp_path / "b").mkdir()
    with pytest.raises(RunFolderError, match=r"/b: already exists\. Choose another"):
        RunFolder.create(tmp_path, "b", CONFIG)


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("")
    for output_dir in (tmp_path / "outputs", tmp_path / "outputs" / "deeper"):
        with pytest.raises(RunFolderError) as caught:
            RunFolder.create(output_dir, "a", CONFIG)
        assert str(caught.value).startswith(f"run.output_dir={output_dir}: cannot be written (")
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_write_permission_is_one_line(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match=r"cannot be written \(Permission denied\)\. Name a folder"):
        RunFolder.create(tmp_path / "locked", "a", CONFIG)


def test_run_json_holds_neither_environment_nor_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-the-environment")
    monkeypatch.setattr("sys.argv", ["fedvtc", "run", "secret-of-the-command-line"])
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    folder.set_status("failed")
    assert "secret" not in (folder.path / "run.json").read_text()


def test_a_record_is_on_disk_before_the_run_ends_and_nan_is_null(run):
    tracker: Tracker = JsonlTracker()
    tracker.start(run)
    tracker.log({"round": 1, "phase": "round", "loss/kl": math.nan, "clients": np.int64(3), "n": {"x": [math.inf]}}, [])
    assert lines(run.folder / "metrics.jsonl") == [
        {"round": 1, "phase": "round", "loss/kl": None, "clients": 3, "n": {"x": [None]}}
    ]
    tracker.log({"round": 2, "test/accuracy/mean": np.float64(0.1)}, [])
    tracker.finish("finished")
    assert lines(run.folder / "metrics.jsonl")[1] == {"round": 2, "test/accuracy/mean": 0.1}


def test_records_are_appended_to_those_that_are_there(run):
    for round in (1, 2):
        tracker = JsonlTracker()
        tracker.start(run)
        tracker.log({"round": round}, [])
        tracker.finish("finished")
    assert lines(run.folder / "metrics.jsonl") == [{"round": 1}, {"round": 2}]


def test_clients_have_one_row_per_evaluation(run):
    tracker: Tracker = CsvTracker()
    tracker.start(run)
    tracker.log({"round": 1, "phase": "round"}, [])
    first = {"client": 0, "backbone": "cnn", "num_images": 5, "num_classes": 1, **dict.fromkeys(CLIENT_METRICS, 0.5)}
    second = {**first, "client": 1, "accuracy": math.nan, "accuracy/missing": None, "time/train": 1.5}
    tracker.log({"round": 2, "phase": "round"}, [first, second])
    tracker.log({"round": 2, "phase": "final"}, [{**first, "unforeseen": 1}])
    with (run.folder / "clients.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [*CLIENT_COLUMNS, "time/train"]
    assert [dict(zip(header, row, strict=True))["phase"] for row in rows] == ["round", "round", "final"]
    row = dict(zip(header, rows[1], strict=True))
    assert {key: row[key] for key in ("round", "client", "backbone", "accuracy", "accuracy/missing", "f1")} == {
        "round": "2",
        "client": "1",
        "backbone": "cnn",
        "accuracy": "",
        "accuracy/missing": "",
        "f1": "0.5",
    }
    tracker.finish("finished")


def test_a_second_attempt_writes_no_second_header(run):
    for round in (1, 2):
        tracker = CsvTracker()
        tracker.start(run)
        tracker.log({"round": round, "phase": "round"}, [{"client": 0}])
        tracker.finish("finished")
    rows = (run.folder / "clients.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["round", "1", "2"]
