"""Isolates trackers from the run: a tracker that fails or waits neither ends nor delays the rounds.

    run --> IsolatedTracker --> [TrackerThread] --> DiskErrors or OptionalTracker --> the wrapped tracker

`DiskErrors` handles trackers that write files of the run folder: failed writes are retried as long as the run lasts.
`OptionalTracker` handles trackers that copy the records elsewhere: a tracker that fails once gets no more records.
`TrackerThread` runs trackers that wait for a server.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import FAILURES, DiskError, count_of, reason
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.tracker_thread import TrackerThread

Report = Callable[[str], None]
"""Prints one line for the user."""


class FailurePolicy(Protocol):
    """Calls the methods of one tracker and handles their errors."""

    def start(self, tracker: Tracker, run: RunInfo) -> None:
        """Starts the tracker."""

    def call(self, tracker: Tracker, method: str, *arguments: Any) -> None:
        """Calls a method of the tracker by name."""

    def finish(self, tracker: Tracker, status: str) -> None:
        """Finishes the tracker."""


class IsolatedTracker(Tracker):
    """Wraps a tracker that must neither end nor delay the run.

    Args:
        tracker: the wrapped tracker; gets copies of all records.
        failures: handles the tracker's errors.
        thread: runs the tracker's methods; None runs them in the caller's thread. A tracker in a thread gets no
            `client_done`.
    """

    def __init__(self, tracker: Tracker, failures: FailurePolicy, thread: TrackerThread | None = None) -> None:
        self._tracker, self._failures, self._thread = tracker, failures, thread

    @property
    def num_waiting(self) -> int:
        """Lines of the tracker that wait in memory."""
        return self._tracker.num_waiting

    def start(self, run: RunInfo) -> None:
        """Starts the thread and the tracker."""
        if self._thread is not None:
            self._thread.start()
        self._do(self._failures.start, run)

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Passes the progress of a step to the tracker; does nothing if the tracker has a thread."""
        if self._thread is None:
            self._do(self._failures.call, "client_done", client, num_done, num_total)

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Passes copies of the record and its rows to the tracker, because other trackers get the originals."""
        self._do(self._failures.call, "log", deepcopy(record), deepcopy(clients))

    def log_confusions(self, record: Mapping[str, Any], confusions: Mapping[str, NDArray[np.uint32]]) -> None:
        """Passes a copy of the record and the confusion matrices to the tracker."""
        self._do(self._failures.call, "log_confusions", deepcopy(record), confusions)

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Passes generated images to the tracker."""
        self._do(self._failures.call, "show_samples", round, images_NCHW, labels_N)

    def finish(self, status: str) -> None:
        """Finishes the tracker, then waits for the thread."""
        self._do(self._failures.finish, status)
        if self._thread is not None:
            self._thread.wait()

    def _do(self, action: Callable[..., None], *arguments: Any) -> None:
        if self._thread is None:
            action(self._tracker, *arguments)
        else:
            self._thread.put(partial(action, self._tracker, *arguments))


class DiskErrors:
    """Handles `OSError`s of a tracker that writes files of the run folder; raises all other errors.

    Args:
        on_disk_error: `continue`, or `stop` to raise a `DiskError` at the first `OSError` (`runtime.on_disk_error`).
        report: gets one line at the first failed write, and one line when a write succeeds again.
    """

    def __init__(self, on_disk_error: Literal["continue", "stop"], report: Report) -> None:
        self._stop, self._report = on_disk_error == "stop", report
        self._folder = Path()
        self._failed_file: str | None = None
        """The first file that could not be written; None while writes succeed."""

    def start(self, tracker: Tracker, run: RunInfo) -> None:
        """Starts the tracker.

        Raises:
            DiskError: if a file cannot be written and the policy is to stop.
        """
        self._folder = run.folder
        self.call(tracker, "start", run)

    def call(self, tracker: Tracker, method: str, *arguments: Any) -> None:
        """Calls a method of the tracker by name.

        Raises:
            DiskError: if a file cannot be written and the policy is to stop.
        """
        num_waiting = tracker.num_waiting if self._failed_file is not None else 0
        try:
            getattr(tracker, method)(*arguments)
        except OSError as error:
            self._handle(error, tracker)
            return
        # A method that the tracker does not override writes nothing, so its success says nothing about the disk.
        wrote = getattr(type(tracker), method) is not getattr(Tracker, method)
        if self._failed_file is not None and wrote:
            lines = f"{num_waiting} waiting lines are" if num_waiting != 1 else "1 waiting line is"
            news = f"writable again, {lines} now written" if num_waiting else "writable again"
            self._report(f"{self._failed_file}: {news}.")
            self._failed_file = None

    def finish(self, tracker: Tracker, status: str) -> None:
        """Finishes the tracker and reports lines that could not be written.

        Raises:
            DiskError: if a file cannot be written for the first time and the policy is to stop.
        """
        failed_before = self._failed_file is not None
        try:
            self.call(tracker, "finish", status)
        except DiskError:
            # The run already ends because of the first DiskError.
            if not failed_before:
                raise
        if num_lost := tracker.num_waiting:
            self._report(f"{self._failed_file}: {count_of(num_lost, 'line')} could not be written.")

    def _handle(self, error: OSError, tracker: Tracker) -> None:
        file = Path(str(error.filename)) if error.filename else self._folder
        is_first = self._failed_file is None
        self._failed_file = self._failed_file or _relative(file, self._folder)
        problem = f"cannot be written ({error.strerror or error})"
        if self._stop:
            fix = "Free disk space and resume the run, or set runtime.on_disk_error=continue."
            raise DiskError(f"{file}: {problem}. {fix}") from error
        if is_first:
            num_waiting = tracker.num_waiting
            waiting = f"; {count_of(num_waiting, 'line')} {'waits' if num_waiting == 1 else 'wait'} in memory"
            self._report(f"{self._failed_file}: {problem}{waiting if num_waiting else ''}.")


class OptionalTracker:
    """Handles all errors of a tracker that the run can do without: reports the first error, then only calls `finish`.

    Args:
        name: the tracker's name in `tracking.trackers`.
        report: gets the line about the first error.
    """

    def __init__(self, name: str, report: Report) -> None:
        self._name, self._report = name, report
        self._has_failed = False

    def start(self, tracker: Tracker, run: RunInfo) -> None:
        """Starts the tracker."""
        self.call(tracker, "start", run)

    def call(self, tracker: Tracker, method: str, *arguments: Any) -> None:
        """Calls a method of the tracker by name, unless the tracker has failed."""
        if not self._has_failed:
            self._try(partial(getattr(tracker, method), *arguments))

    def finish(self, tracker: Tracker, status: str) -> None:
        """Finishes the tracker, also after a failure."""
        self._try(partial(tracker.finish, status))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except FAILURES as error:
            if not self._has_failed:
                line = f"tracking.trackers: {self._name} failed and is left out from now on ({reason(error)})."
                self._report(line)
            self._has_failed = True


def _relative(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder) if file != folder and file.is_relative_to(folder) else file)
