import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedvtc.config.schema import Config
from fedvtc.learning.metrics import CLIENT_METRICS
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.record_files import CLIENT_COLUMNS, CsvTracker, JsonlTracker


@pytest.fixture
def run(tmp_path):
    return RunInfo("abc", "run", tmp_path, Config(), {}, np.ones((2, 2), dtype=np.int64), ["cnn", "vit"])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


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


def test_records_are_appended_to_existing_records(run):
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


def resume(run, tracker, after):
    tracker.start(replace(run, resumed_round=after))
    return tracker


def test_a_resumed_run_keeps_the_records_up_to_its_checkpoint(run):
    file = run.folder / "metrics.jsonl"
    one, two, three = (f'{{"round": {round}, "phase": "round", "loss/kl": {round}.5}}\n' for round in (1, 2, 3))
    final = '{"round": 3, "phase": "final"}\n'
    junk = 'null\n{"round": "2", "phase": "round"}\n{"phase": "round"}\n{"round": 2, "pha\n'
    file.write_text(one + junk + two.replace(".5", ".0") + one + two + final + three + three.rstrip("\n"))

    tracker = resume(run, JsonlTracker(), after=2)
    assert file.read_text() == one + two.replace(".5", ".0")

    tracker.log({"round": 3, "phase": "round"}, [])
    assert [record["round"] for record in lines(file)] == [1, 2, 3]
    tracker.finish("finished")
    assert {path.name for path in run.folder.iterdir()} == {"metrics.jsonl"}


def test_a_record_without_line_end_is_cut_off_although_it_is_valid(run):
    file = run.folder / "metrics.jsonl"
    file.write_text('{"round": 1, "phase": "round"}\n{"round": 2, "phase": "round"}')
    resume(run, JsonlTracker(), after=2).finish("finished")
    assert lines(file) == [{"round": 1, "phase": "round"}]


@pytest.mark.parametrize("tracker", [JsonlTracker(), CsvTracker()])
def test_a_run_that_starts_over_has_empty_files(run, tracker):
    resume(run, tracker, after=5).finish("finished")
    (file,) = run.folder.iterdir()
    assert file.read_bytes() == b""
    file.write_text('{"round": 1, "phase": "round"}\n')
    resume(run, JsonlTracker(), after=0).finish("finished")
    assert (run.folder / "metrics.jsonl").read_bytes() == b""


def test_a_resumed_run_keeps_rows_and_columns_up_to_its_checkpoint(run):
    file = run.folder / "clients.csv"
    header = "round,phase,client,old,accuracy\n"
    kept = 'round,"a, b",1,0.5\n'
    file.write_text(header + f"1,{kept}2,{kept}2,final,,0,0.5\n3,{kept}2,round\nx,{kept}2,{kept}".rstrip("\n"))

    tracker = resume(run, CsvTracker(), after=2)
    assert file.read_text() == header + f"1,{kept}2,{kept}"

    tracker.log({"round": 3, "phase": "round"}, [{"client": 0, "accuracy": 0.25, "new": 1}])
    tracker.finish("finished")
    assert file.read_text().splitlines()[-1] == "3,round,0,,0.25"


@pytest.mark.parametrize("torn", ["", "round,phase,client", "round,phase,cli\0\0\0", "1,round,0\n"])
def test_a_torn_or_wrong_header_is_replaced(run, torn):
    (run.folder / "clients.csv").write_text(torn)
    tracker = resume(run, CsvTracker(), after=0)
    tracker.log({"round": 1, "phase": "round"}, [{"client": 0}])
    tracker.finish("finished")
    header, row = (run.folder / "clients.csv").read_text().splitlines()
    assert header.split(",") == list(CLIENT_COLUMNS)
    assert row.startswith("1,round,0,")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(killed_at=st.integers(0, 900), after=st.integers(0, 4))
def test_a_run_killed_at_any_byte_and_resumed_has_the_files_of_an_undisturbed_run(run, killed_at, after):
    """The checkpoint is newer than its records, so all records up to the checkpoint are whole."""
    rows = [{"client": client, "accuracy": 0.5 + client} for client in range(2)]

    def attempt(trackers, info, first):
        for tracker in trackers:
            tracker.start(info)
            for round in range(first, 5):
                tracker.log({"round": round, "phase": "round", "loss/kl": 1 / round}, rows)
            tracker.finish("finished")

    files = [run.folder / name for name in ("metrics.jsonl", "clients.csv")]
    for file in files:
        file.unlink(missing_ok=True)
    attempt([JsonlTracker(), CsvTracker()], run, first=1)
    whole = [file.read_bytes() for file in files]
    for file, content, num_lines in zip(files, whole, (after, 1 + 2 * after if after else 0), strict=True):
        logged = b"".join(content.splitlines(keepends=True)[:num_lines])
        file.write_bytes(content[: max(len(logged), killed_at)])
    attempt([JsonlTracker(), CsvTracker()], replace(run, resumed_round=after), first=after + 1)
    assert [file.read_bytes() for file in files] == whole
