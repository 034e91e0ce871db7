import errno
from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config.schema import Config, EvaluateConfig, RunConfig
from fedvtc.storage import confusions
from fedvtc.storage.confusions import CONFUSION_FILE, evaluations
from fedvtc.tracking import RunInfo, confusion_file
from fedvtc.tracking.confusion_file import ConfusionTracker

COUNTS = {"": np.ones((2, 3, 3), np.uint32)}


@pytest.fixture
def run(tmp_path):
    config = Config(run=RunConfig(rounds=9), evaluate=EvaluateConfig(every=2))
    return RunInfo("abc", "run", tmp_path, config, {}, np.ones((2, 3), dtype=np.int64), ["cnn", "vit"])


def log(tracker, *rounds):
    for round in rounds:
        phase = "final" if round is None else "round"
        tracker.log_confusions({"round": round or 9, "phase": phase}, COUNTS)


def rounds_of(run):
    return [evaluated.round for evaluated in evaluations(run.folder)]


@pytest.mark.parametrize(("num_kept", "kept"), [(9, [2, 4, 6, 8, 9]), (2, [4, 8, 9]), (1, [8, 9]), (0, [])])
def test_a_large_run_keeps_every_nth_the_last_and_the_final_evaluation(run, monkeypatch, num_kept, kept):
    monkeypatch.setattr(confusions, "MAX_COUNTS", num_kept * 2 * 3 * 3)
    tracker = ConfusionTracker()
    tracker.start(run)
    log(tracker, 2, 4, 6, 8, 9, None)
    assert rounds_of(run) == ([*kept, None] if kept else [])


def test_a_resumed_run_removes_the_evaluations_after_its_checkpoint(run):
    first, second = ConfusionTracker(), ConfusionTracker()
    first.start(run)
    log(first, 2, 4, None)
    second.start(replace(run, resumed_round=3))
    log(second, 4, 6)
    assert rounds_of(run) == [2, 4, 6]


def test_matrices_wait_while_the_disk_is_full(run, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(run.folder / CONFUSION_FILE))

    tracker = ConfusionTracker()
    tracker.start(run)
    with monkeypatch.context() as patch:
        patch.setattr(confusion_file, "add_confusions", no_room)
        for round in (2, 4):
            with pytest.raises(OSError, match="No space"):
                log(tracker, round)
    assert (tracker.num_waiting, rounds_of(run)) == (2, [])
    tracker.finish("interrupted")
    assert (tracker.num_waiting, rounds_of(run)) == (0, [2, 4])
