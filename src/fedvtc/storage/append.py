"""Appends whole lines to a file, also on a disk that is full for a while."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class AppendFile:
    """Appends whole lines to a file; while the process lives, no line is torn and none is lost.

    Lines that cannot be written wait in memory and are written first when the disk takes data again. No other process
    may append to the file meanwhile. Every raised `OSError` has the file as its `filename`.

    Args:
        path: the file; created if missing.
        prepare: called before the file is opened; called again for the next write after `prepare` raised an `OSError`.
    """

    def __init__(self, path: Path, prepare: Callable[[], None] | None = None) -> None:
        self._path, self._prepare = path, prepare
        self._file: int | None = None
        self._end_bytes = 0
        self._waiting: deque[bytes] = deque()

    @property
    def num_waiting(self) -> int:
        """Lines that wait in memory."""
        return sum(lines.count(b"\n") for lines in self._waiting)

    def open(self) -> None:
        """Opens the file at its end; `append` and `close` open the file too.

        Raises:
            OSError: if the file cannot be prepared or opened.
        """
        self._try(self._opened)

    def append(self, text: str) -> None:
        """Appends lines in one write, then waits until the lines are on disk.

        Args:
            text: whole lines, each with a line end; an empty text only retries the waiting lines.

        Raises:
            OSError: if the lines cannot be written; the lines then wait.
        """
        if text:
            self._waiting.append(text.encode())
        self._try(self._write_waiting)

    def close(self) -> None:
        """Closes the file after a last try to write the waiting lines.

        Raises:
            OSError: if lines could not be written; `num_waiting` counts them.
        """
        try:
            if self._waiting:
                self._try(self._write_waiting)
        finally:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            error.filename = str(self._path)
            raise

    def _opened(self) -> int:
        if self._file is None:
            if self._prepare is not None:
                self._prepare()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._end_bytes = os.fstat(self._file).st_size
        return self._file

    def _write_waiting(self) -> None:
        file = self._opened()
        if not self._waiting:
            return
        written: list[bytes] = []
        while self._waiting:
            self._write(file, self._waiting[0])
            written.append(self._waiting.popleft())
            self._end_bytes += len(written[-1])
        try:
            # Checkpoints are synced too: after a power cut no record before a checkpoint may be missing.
            os.fsync(file)
        except OSError:
            self._waiting.extend(written)
            self._end_bytes -= sum(map(len, written))
            raise

    def _write(self, file: int, lines: bytes) -> None:
        self._cut_back(file)
        rest = lines
        try:
            # A disk that fills up takes the first part without an error, and raises for the second part.
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            # If even this fails, the next write cuts back first.
            with suppress(OSError):
                self._cut_back(file)
            raise

    def _cut_back(self, file: int) -> None:
        """Cuts off the part of a line that a failed write left at the end of the file."""
        if os.fstat(file).st_size > self._end_bytes:
            os.ftruncate(file, self._end_bytes)
