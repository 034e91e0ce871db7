"""What happens when a tracker's disk is full, gone or read-only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DiskError
from fedvtc.tracking import RunInfo, Tracker


class GuardedTracker(Tracker):
    """A tracker whose `OSError`s do not end the run, or end it in one clear line.

    Args:
        tracker: writes files of the run folder.
        on_disk_error: `continue`, or `stop` to end the run at the first `OSError`; see `runtime.on_disk_error`.
        report: gets one line when something cannot be written, none while that lasts, and one when it is over.
    """

    def __init__(
        self, tracker: Tracker, on_disk_error: Literal["continue", "stop"], report: Callable[[str], None]
    ) -> None:
        self._tracker, self._stop, self._report = tracker, on_disk_error == "stop", report
        self._folder = Path()
        self._failed: str | None = None
        """The file that could not be written, until something can be."""

    @property
    def num_waiting(self) -> int:
        """Lines of the tracker that wait in memory."""
        return self._tracker.num_waiting

    def start(self, run: RunInfo) -> None:
        """Starts the tracker; raises `DiskError` on an `OSError` where it is to stop, as all methods do."""
        self._folder = run.folder
        with self._guard("start"):
            self._tracker.start(run)

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Hands it on."""
        with self._guard("client_done"):
            self._tracker.client_done(client, num_done, num_total)

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Hands it on."""
        with self._guard("log"):
            self._tracker.log(record, clients)

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Hands it on."""
        with self._guard("show_samples"):
            self._tracker.show_samples(round, images_NCHW, labels_N)

    def finish(self, status: str) -> None:
        """Finishes the tracker, and reports the lines that are lost with the end of the process."""
        failed_before = self._failed is not None
        try:
            with self._guard("finish"):
                self._tracker.finish(status)
        except DiskError:
            # The run is ending for this very reason.
            if not failed_before:
                raise
        if num_lost := self.num_waiting:
            self._report(f"{self._failed}: {num_lost} {'lines' if num_lost != 1 else 'line'} could not be written.")

    @contextmanager
    def _guard(self, method: str) -> Iterator[None]:
        num_waiting = self.num_waiting if self._failed is not None else 0
        try:
            yield
        except OSError as error:
            self._fail(error)
            return
        # What a tracker leaves to its base writes nothing, so it tells nothing about the disk.
        wrote = getattr(type(self._tracker), method) is not getattr(Tracker, method)
        if self._failed is not None and wrote:
            lines = f"{num_waiting} lines were" if num_waiting != 1 else "1 line was"
            what = f"written again, {lines} waiting" if num_waiting else "the disk takes files again"
            self._report(f"{self._failed}: {what}.")
            self._failed = None

    def _fail(self, error: OSError) -> None:
        file = Path(str(error.filename)) if error.filename else self._folder
        known, self._failed = self._failed, self._failed or _relative(file, self._folder)
        what = f"cannot be written ({error.strerror or error})"
        if self._stop:
            fix = "Make room and resume the run, or set runtime.on_disk_error=continue."
            raise DiskError(f"{file}: {what}. {fix}") from error
        if known is None:
            num_waiting = self.num_waiting
            lines = f"{num_waiting} lines wait" if num_waiting != 1 else "1 line waits"
            self._report(f"{self._failed}: {what}{f'; {lines} in memory' if num_waiting else ''}.")


def _relative(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder) if file != folder and file.is_relative_to(folder) else file)
