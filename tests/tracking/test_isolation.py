import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config.schema import Config
from fedvtc.errors import DiskError, reason
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.isolation import DiskErrors, IsolatedTracker, OptionalTracker
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.record_files import CsvTracker, JsonlTracker
from fedvtc.tracking.tracker_thread import TrackerThread

needs_full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
IMAGES_NCHW = np.zeros((2, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def run(tmp_path):
    return RunInfo("abc", "a", tmp_path / "a", Config(), {}, np.ones((2, 2), dtype=np.int64), ["cnn", "vit"])


@pytest.fixture
def reported():
    return []


@pytest.fixture
def isolate(reported):
    """Wraps a tracker of files; its lines go into `reported`."""
    return lambda tracker, on_disk_error="continue": IsolatedTracker(
        tracker, DiskErrors(on_disk_error, reported.append)
    )


def record(round):
    return {"round": round, "phase": "round"}


def records_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tracker_without_disk_errors_reports_nothing(run, isolate, reported):
    run.folder.mkdir()
    tracker = isolate(JsonlTracker())
    tracker.start(run)
    tracker.client_done(0, 1, 2)
    tracker.log(record(1), [])
    tracker.finish("finished")
    assert (run.folder / "metrics.jsonl").read_text() == '{"round": 1, "phase": "round"}\n'
    assert reported == []


def test_a_disk_error_is_reported_once_and_its_end_once(run, isolate, reported, golden):
    tracker = isolate(JsonlTracker())
    tracker.start(run)
    for round in (1, 2, 3):
        tracker.log(record(round), [])
        tracker.client_done(0, 1, 1)
    assert (len(reported), tracker.num_waiting) == (1, 3)
    run.folder.mkdir()
    tracker.log(record(4), [])
    assert len(reported) == 2
    tracker.log(record(5), [])
    tracker.finish("finished")
    assert records_in(run.folder) == [record(round) for round in (1, 2, 3, 4, 5)]
    assert len(reported) == 2
    golden("\n".join(reported))


def test_a_file_is_cut_back_before_waiting_lines_are_written(run, isolate, reported, golden):
    run.folder.mkdir()
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record(round)) + "\n" for round in (1, 2, 3)))
    tracker = isolate(JsonlTracker())
    # The folder takes files, except the one that is written beside the file to replace it.
    (run.folder / ".metrics.tmp.jsonl").mkdir()
    tracker.start(replace(run, resumed_round=1))
    tracker.log(record(2), [])
    assert len(reported) == 1
    (run.folder / ".metrics.tmp.jsonl").rmdir()
    tracker.finish("finished")
    assert records_in(run.folder) == [record(1), record(2)]
    assert len(reported) == 2
    golden("\n".join(reported))


@needs_full_disk
def test_lines_lost_at_the_end_are_counted(run, isolate, reported, golden):
    run.folder.mkdir()
    (run.folder / "clients.csv").symlink_to("/dev/full")
    tracker = isolate(CsvTracker())
    tracker.start(run)
    tracker.log(record(1), [])
    assert reported == []
    # A header and two rows.
    tracker.log(record(2), [{"client": 0}, {"client": 1}])
    assert (len(reported), tracker.num_waiting) == (1, 3)
    tracker.log(record(3), [])
    tracker.finish("finished")
    assert len(reported) == 2
    golden("\n".join(reported))


@needs_full_disk
def test_the_policy_stop_ends_the_run_with_one_line(run, isolate, reported, golden, keys_of):
    run.folder.mkdir()
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    tracker = isolate(JsonlTracker(), "stop")
    tracker.start(run)
    with pytest.raises(DiskError) as caught:
        tracker.log(record(1), [])
    assert keys_of(caught.value) == [f"{run.folder}/metrics.jsonl"]
    golden(caught.value)
    # The run ends because of the first error, so that a second one raises nothing.
    tracker.finish("failed")
    assert len(reported) == 1
    golden(reported[0])


def test_the_policy_stop_ends_a_run_whose_tracker_cannot_start(run, isolate, golden, keys_of):
    with pytest.raises(DiskError) as caught:
        isolate(PictureTracker(["x", "y"]), "stop").start(run)
    assert keys_of(caught.value) == [f"{run.folder}/partition.png"]
    golden(caught.value)


def test_only_a_picture_shows_that_the_disk_takes_pictures_again(run, isolate, reported, golden):
    tracker = isolate(PictureTracker(["x", "y"]))
    tracker.start(run)
    tracker.log(record(1), [])
    tracker.client_done(0, 1, 1)
    tracker.show_samples(1, IMAGES_NCHW, [0, 1])
    assert len(reported) == 1
    run.folder.mkdir()
    tracker.log(record(2), [])
    assert len(reported) == 1
    tracker.show_samples(2, IMAGES_NCHW, [0, 1])
    assert len(reported) == 2
    tracker.finish("finished")
    assert [path.name for path in run.folder.rglob("*.png")] == ["round_000002.png"]
    golden("\n".join(reported))


def test_the_policy_for_disk_errors_lets_other_errors_pass(isolate):
    class Broken(Tracker):
        def client_done(self, client, num_done, num_total):
            raise ValueError("text")

    with pytest.raises(ValueError, match="text"):
        isolate(Broken()).client_done(0, 1, 1)


class Recording(Tracker):
    """Notes every call, then raises an error."""

    def __init__(self, error=None, failing=("client_done",)):
        self.calls, self._error, self._failing = [], error, failing

    def _note(self, name):
        self.calls.append(name)
        if name in self._failing and self._error is not None:
            raise self._error

    def start(self, run):
        self._note("start")

    def client_done(self, client, num_done, num_total):
        self._note("client_done")

    def log(self, record, clients):
        self._note("log")

    def log_confusions(self, record, confusions):
        self._note("log_confusions")

    def show_samples(self, round, images_NCHW, labels_N):
        self._note("show_samples")

    def finish(self, status):
        self._note("finish")


METHODS = ("start", "client_done", "log_confusions", "log", "show_samples", "finish")


@pytest.mark.parametrize("failing", METHODS)
def test_an_optional_tracker_is_only_finished_after_its_first_error(run, reported, failing):
    inner = Recording(RuntimeError("no more"), (failing, "finish"))
    tracker = IsolatedTracker(inner, OptionalTracker("mine", reported.append))
    tracker.start(run)
    tracker.client_done(0, 1, 1)
    tracker.log_confusions(record(1), {})
    tracker.log(record(1), [])
    tracker.show_samples(1, IMAGES_NCHW, [0, 1])
    tracker.finish("finished")
    before = METHODS[: METHODS.index(failing) + 1]
    assert inner.calls == list(dict.fromkeys([*before, "finish"]))
    assert len(reported) == 1


class Blocked(Tracker):
    """Does nothing until `go` is set."""

    def __init__(self):
        self.go, self.calls, self.threads = threading.Event(), [], set()

    def start(self, run):
        self.go.wait()
        self.threads.add(threading.current_thread())
        self.calls.append("start")

    def client_done(self, client, num_done, num_total):
        raise AssertionError("a tracker in a thread gets no progress of single clients")

    def log(self, record, clients):
        self.calls.append(record["round"])

    def finish(self, status):
        self.threads.add(threading.current_thread())
        self.calls.append(status)


@pytest.fixture
def blocked(run, reported):
    """A started tracker in a thread that waits so many seconds at the end; the times that it gave up."""

    def start(wait_s):
        tracker, given_up = Blocked(), []
        thread = TrackerThread(wait_s, lambda: given_up.append(True))
        isolated = IsolatedTracker(tracker, OptionalTracker("mine", reported.append), thread)
        isolated.start(run)
        return tracker, isolated, given_up

    return start


def test_a_thread_drops_no_call_and_keeps_their_order(blocked, reported):
    tracker, isolated, given_up = blocked(60)
    changing = {"round": 0}
    for round in range(1000):
        # The caller may change its record after the call.
        changing["round"] = round
        isolated.log(changing, [])
        isolated.client_done(0, 1, 1)
    assert tracker.calls == []
    tracker.go.set()
    isolated.finish("finished")
    assert tracker.calls == ["start", *range(1000), "finished"]
    assert (given_up, reported) == ([], [])
    assert len(tracker.threads) == 1
    assert threading.current_thread() not in tracker.threads


def test_a_thread_waits_no_longer_than_its_limit(blocked):
    tracker, isolated, given_up = blocked(0.01)
    isolated.finish("failed")
    assert (tracker.calls, given_up) == ([], [True])
    tracker.go.set()


def test_a_signal_ends_the_wait_for_a_thread(blocked):
    tracker, isolated, given_up = blocked(200)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            isolated.finish("finished")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert given_up == [True]
    tracker.go.set()


def test_an_error_of_many_lines_becomes_one_line(golden):
    from pydantic import ValidationError
    from wandb import Settings

    with pytest.raises(ValidationError) as caught:
        Settings(mode="junk")
    assert len(str(caught.value).splitlines()) > 2
    line = reason(caught.value)
    assert line.startswith("ValidationError: ")
    assert (len(line.splitlines()), len(line) < 250) == (1, True)
    golden(line)
