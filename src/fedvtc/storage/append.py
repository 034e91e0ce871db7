"""A file that grows by whole lines, also on a disk that is full for a while."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class AppendFile:
    """Appends whole lines to a file. As long as the process lives, none is torn and none is lost.

    What cannot be written waits in memory and goes first as soon as something can be. Nobody else may append to the
    file meanwhile.

    Every `OSError` that it raises has the file as its `filename`.

    Args:
        path: the file; made where it is absent.
        prepare: what is to be done to the file before it is opened; tried again as long as that raises an `OSError`.
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
        """Opens the file at its end; `append` and `close` do so too.

        Raises:
            OSError: if it cannot be prepared or opened.
        """
        self._try(self._opened)

    def append(self, text: str) -> None:
        """Appends lines, with one write where the disk takes it whole, so that a reader never meets half of one.

        Args:
            text: whole lines, each with its newline; none at all to only try what waits.

        Raises:
            OSError: if they cannot be written; they wait.
        """
        if text:
            self._waiting.append(text.encode())
        self._try(self._write_waiting)

    def close(self) -> None:
        """Closes the file, after one more try to write what waits.

        Raises:
            OSError: if lines could not be written; `num_waiting` tells how many.
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
            # A checkpoint is on the disk before the next; what it follows must be too, or a power cut leaves a gap.
            os.fsync(file)
        except OSError:
            self._waiting.extend(written)
            self._end_bytes -= sum(map(len, written))
            raise

    def _write(self, file: int, lines: bytes) -> None:
        self._cut_back(file)
        rest = lines
        try:
            # A disk that fills up takes the beginning and says why only when it is given the rest.
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            # Where even this fails, the next try begins with it.
            with suppress(OSError):
                self._cut_back(file)
            raise

    def _cut_back(self, file: int) -> None:
        """Takes off what a write that failed left behind the last whole line."""
        if os.fstat(file).st_size > self._end_bytes:
            os.ftruncate(file, self._end_bytes)
