"""Runs a tracker in a thread, so that the rounds do not wait for the tracker's server."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class TrackerThread:
    """Runs the calls of one tracker in order; calls wait in memory and none is dropped.

    Args:
        wait_s: seconds that the calls left at the end may take.
        give_up: called when those seconds are over, or when a signal interrupts the wait.
    """

    def __init__(self, wait_s: float, give_up: Callable[[], None]) -> None:
        self._wait_s, self._give_up = wait_s, give_up
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Up to Python 3.12, a `join` that a signal interrupts marks a live thread as ended.
        self._is_done = threading.Event()

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._work, name="tracker", daemon=True).start()

    def put(self, call: Callable[[], None]) -> None:
        """Queues a call."""
        self._calls.put(call)

    def wait(self) -> None:
        """Waits until all queued calls are done or `wait_s` is over; no call may follow."""
        self._calls.put(None)
        try:
            self._is_done.wait(self._wait_s)
        finally:
            if not self._is_done.is_set():
                self._give_up()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        self._is_done.set()
