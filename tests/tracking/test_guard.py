import json
import os
from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config.schema import Config
from fedvtc.errors import DiskError
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.guard import GuardedTracker
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.record_files import CsvTracker, JsonlTracker

needs_full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
IMAGES_NCHW = np.zeros((2, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def run(tmp_path):
    return RunInfo("abc", "a", tmp_path / "a", Config(), {}, np.ones((2, 2), dtype=np.int64), ["cnn", "vit"])


def record(round):
    return {"round": round, "phase": "round"}


def test_a_tracker_whose_disk_is_well_is_left_alone(run):
    run.folder.mkdir()
    said = []
    tracker = GuardedTracker(JsonlTracker(), "continue", said.append)
    tracker.start(run)
    tracker.client_done(0, 1, 2)
    tracker.log(record(1), [])
    tracker.finish("finished")
    assert (run.folder / "metrics.jsonl").read_text() == '{"round": 1, "phase": "round"}\n'
    assert said == []


def test_a_failure_is_said_once_and_its_end_too(run):
    said = []
    tracker = GuardedTracker(JsonlTracker(), "continue", said.append)
    for first in (1, 4):
        if first == 1:
            tracker.start(run)
            assert said == ["metrics.jsonl: cannot be written (No such file or directory)."]
            for round in (1, 2, 3):
                tracker.log(record(round), [])
                tracker.client_done(0, 1, 1)
            assert (len(said), tracker.num_waiting) == (1, 3)
            run.folder.mkdir()
        tracker.log(record(first + 3), [])
    assert said[1:] == ["metrics.jsonl: written again, 3 lines were waiting."]
    tracker.finish("finished")
    records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [1, 2, 3, 4, 7]
    assert len(said) == 2


def test_a_file_is_cut_back_before_what_waited_is_written(run):
    away = run.folder.with_name("away")
    away.mkdir()
    (away / "metrics.jsonl").write_text("".join(json.dumps(record(round)) + "\n" for round in (1, 2, 3)))
    said = []
    tracker = GuardedTracker(JsonlTracker(), "continue", said.append)
    # The folder is there, but what is to be written beside the file cannot be.
    (away / ".metrics.tmp.jsonl").mkdir()
    away.rename(run.folder)
    tracker.start(replace(run, resumed_round=1))
    tracker.log(record(2), [])
    assert said == ["metrics.jsonl: cannot be written (Is a directory)."]
    (run.folder / ".metrics.tmp.jsonl").rmdir()
    tracker.finish("finished")
    assert said[1:] == ["metrics.jsonl: written again, 1 line was waiting."]
    records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert records == [record(1), record(2)]


@needs_full_disk
def test_lines_that_are_lost_in_the_end_are_counted(run):
    run.folder.mkdir()
    (run.folder / "clients.csv").symlink_to("/dev/full")
    said = []
    tracker = GuardedTracker(CsvTracker(), "continue", said.append)
    tracker.start(run)
    tracker.log(record(1), [])
    assert said == []
    tracker.log(record(2), [{"client": 0}, {"client": 1}])
    assert said == ["clients.csv: cannot be written (No space left on device); 3 lines wait in memory."]
    tracker.log(record(3), [])
    tracker.finish("finished")
    assert said[1:] == ["clients.csv: 3 lines could not be written."]


@needs_full_disk
def test_where_it_is_to_stop_one_clear_line_ends_the_run(run):
    run.folder.mkdir()
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    said = []
    tracker = GuardedTracker(JsonlTracker(), "stop", said.append)
    tracker.start(run)
    with pytest.raises(DiskError) as caught:
        tracker.log(record(1), [])
    assert str(caught.value) == (
        f"{run.folder}/metrics.jsonl: cannot be written (No space left on device). "
        "Make room and resume the run, or set runtime.on_disk_error=continue."
    )
    tracker.finish("failed")
    assert said == ["metrics.jsonl: 1 line could not be written."]


def test_where_it_is_to_stop_a_start_that_fails_ends_the_run(run):
    with pytest.raises(
        DiskError, match=r"/a/partition\.png: cannot be written \(No such file or directory\)\. Make room"
    ):
        GuardedTracker(PictureTracker(["x", "y"]), "stop", print).start(run)


def test_only_a_picture_tells_that_pictures_can_be_written_again(run):
    said = []
    tracker = GuardedTracker(PictureTracker(["x", "y"]), "continue", said.append)
    tracker.start(run)
    assert said == ["partition.png: cannot be written (No such file or directory)."]
    tracker.log(record(1), [])
    tracker.client_done(0, 1, 1)
    tracker.show_samples(1, IMAGES_NCHW, [0, 1])
    assert len(said) == 1
    run.folder.mkdir()
    tracker.log(record(2), [])
    tracker.show_samples(2, IMAGES_NCHW, [0, 1])
    assert said[1:] == ["partition.png: the disk takes files again."]
    tracker.finish("finished")
    assert [path.name for path in run.folder.rglob("*.png")] == ["round_000002.png"]


def test_other_errors_are_not_its_business(run):
    class Broken(Tracker):
        def client_done(self, client, num_done, num_total):
            raise ValueError("text")

    with pytest.raises(ValueError, match="text"):
        GuardedTracker(Broken(), "continue", print).client_done(0, 1, 1)
