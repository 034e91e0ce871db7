"""A tracker that waits for somebody else, without the rounds waiting for it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.tracking import RunInfo, Tracker


class BackgroundTracker(Tracker):
    """A tracker that does all its work in one thread, in order; what it is told waits in memory and none is lost.

    Args:
        tracker: raises nothing; does not hear of single clients.
        wait_s: seconds that it gets in the end for what is left.
        give_up: called instead when they are over, or when the run is told not to wait any longer.
    """

    def __init__(self, tracker: Tracker, wait_s: float, give_up: Callable[[], None]) -> None:
        self._tracker, self._wait_s, self._give_up = tracker, wait_s, give_up
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A `join` that a signal interrupts takes the thread for dead, up to Python 3.12.
        self._done = threading.Event()

    def start(self, run: RunInfo) -> None:
        """Starts the tracker in its thread."""
        threading.Thread(target=self._work, name="tracker", daemon=True).start()
        self._tasks.put(partial(self._tracker.start, run))

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Hands it on in its turn."""
        self._tasks.put(partial(self._tracker.log, dict(record), list(clients)))

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Hands it on in its turn."""
        self._tasks.put(partial(self._tracker.show_samples, round, images_NCHW, labels_N))

    def finish(self, status: str) -> None:
        """Waits until the tracker has done all that it was told, and no longer than it may."""
        self._tasks.put(partial(self._tracker.finish, status))
        self._tasks.put(None)
        try:
            self._done.wait(self._wait_s)
        finally:
            if not self._done.is_set():
                self._give_up()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
        self._done.set()
