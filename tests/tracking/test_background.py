import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.schema import Config
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.background import BackgroundTracker

RUN = RunInfo("id", "run", Path(), Config(), {}, np.ones((1, 1), dtype=np.int64), ["cnn"])


class Blocked(Tracker):
    """Does nothing until it is let go."""

    def __init__(self):
        self.go, self.heard, self.threads = threading.Event(), [], set()

    def start(self, run):
        self.go.wait()
        self.threads.add(threading.current_thread())
        self.heard.append("start")

    def log(self, record, clients):
        self.heard.append(record["round"])

    def finish(self, status):
        self.threads.add(threading.current_thread())
        self.heard.append(status)


def test_nobody_waits_nothing_is_lost_and_the_order_is_kept():
    given_up = []
    tracker = Blocked()
    background = BackgroundTracker(tracker, 60, lambda: given_up.append(True))
    background.start(RUN)
    record = {"round": 0}
    for round in range(1000):
        # Whoever logs may change its record afterwards.
        record["round"] = round
        background.log(record, [])
    assert tracker.heard == []
    tracker.go.set()
    background.finish("finished")
    assert tracker.heard == ["start", *range(1000), "finished"]
    assert given_up == []
    assert len(tracker.threads) == 1
    assert threading.current_thread() not in tracker.threads


def test_it_waits_no_longer_than_it_may():
    given_up = []
    tracker = Blocked()
    background = BackgroundTracker(tracker, 0.01, lambda: given_up.append(True))
    background.start(RUN)
    background.finish("failed")
    assert (tracker.heard, given_up) == ([], [True])
    tracker.go.set()


def test_who_does_not_want_to_wait_any_longer_gets_away():
    given_up = []
    tracker = Blocked()
    background = BackgroundTracker(tracker, 200, lambda: given_up.append(True))
    background.start(RUN)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            background.finish("finished")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert given_up == [True]
    tracker.go.set()
