"""What happens when a tracker that the run can do without fails."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.tracking import RunInfo, Tracker

FAILURES = (Exception, SystemExit)
"""What code of others may raise; Ctrl-C is none of its failures."""
MAX_LETTERS = 200
"""Letters of an error's text that a line tells."""


class LenientTracker(Tracker):
    """A tracker whose errors do not end the run: the first one is told, and from then on it is only finished.

    Args:
        tracker: that may fail.
        name: of the tracker in `tracking.trackers`.
        report: gets the one line.
    """

    def __init__(self, tracker: Tracker, name: str, report: Callable[[str], None]) -> None:
        self._tracker, self._name, self._report = tracker, name, report
        self._has_failed = False

    def start(self, run: RunInfo) -> None:
        """Hands it on."""
        self._try(self._tracker.start, run)

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Hands it on."""
        self._try(self._tracker.client_done, client, num_done, num_total)

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Hands copies on, for others are given the same record."""
        self._try(self._tracker.log, deepcopy(record), deepcopy(clients))

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Hands it on."""
        self._try(self._tracker.show_samples, round, images_NCHW, labels_N)

    def finish(self, status: str) -> None:
        """Finishes the tracker, also one that has failed."""
        try:
            self._tracker.finish(status)
        except FAILURES as error:
            self._tell(error)

    def _try(self, method: Callable[..., None], *arguments: Any) -> None:
        if self._has_failed:
            return
        try:
            method(*arguments)
        # Whatever it is: the federation is worth more than its picture.
        except FAILURES as error:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        if not self._has_failed:
            self._report(f"tracking.trackers: {self._name} failed and is left out from now on ({reason(error)}).")
        self._has_failed = True


def reason(error: BaseException) -> str:
    """Kind and text of an error, in one line."""
    # All of its lines, for the first one of some only counts what went wrong.
    text = textwrap.shorten(str(error), MAX_LETTERS).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
