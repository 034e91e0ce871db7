"""A file for the states of idle clients of one process: a cache that no other process reads.

The file has no name. So the system deletes the file with its process, however the process ends, and neither a resume
nor the process that replaces a lost one finds stale states. States are written and read by calls and not through a
memory map: a full disk then raises an error instead of killing the process, and the system's cache of the file does not
count as memory of the process. A thread writes, so that the clients' steps do not wait for the disk.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from fedvtc.errors import DiskError

Buffers = Sequence[memoryview]
"""Bytes one after another; each view keeps its bytes in memory."""

_BUFFERS_OF_CALL = 512
"""Buffers of one call of the system, which takes at most 1,024."""


class Extent(NamedTuple):
    """A part of the file."""

    offset: int
    num_bytes: int


class _Writing(NamedTuple):
    """A part that the thread has to write."""

    num_bytes: int
    end: "Future[None]"


class IdleFile:
    """Parts of bytes, which are written once and read until they are released.

    Args:
        folder: folder on the disk to use; None, or a folder that this node lacks, takes the system's temporary folder.
        pending_bytes: bytes that may wait in memory for the thread that writes.
    """

    def __init__(self, folder: Path | None, pending_bytes: int) -> None:
        self._folder, self._pending_bytes = folder, pending_bytes
        self._file: IO[bytes] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="idle")
        self._writings: deque[_Writing] = deque()
        # The parts by offset that the file does not hold yet, or that could not be written.
        self._pending: dict[int, Buffers] = {}
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def write(self, buffers: Buffers) -> Extent:
        """Writes buffers one after another into a free part of the file, in part after this method has returned.

        The buffers must have at least one byte, and their contents must not change until the part is released.

        Raises:
            DiskError: the disk is full, or cannot be written. The error may be that of an earlier call, whose part can
                still be read.
        """
        num_bytes = sum(len(buffer) for buffer in buffers)
        # The clients of one backbone have equally many bytes, so a released part fits another client.
        offsets = self._free.get(num_bytes)
        offset = offsets.pop() if offsets else self._end
        extent = Extent(offset, num_bytes)
        self._end = max(self._end, offset + num_bytes)
        try:
            descriptor = self._opened()
            self._pending[offset] = buffers
            self._writings.append(_Writing(num_bytes, self._thread.submit(self._write, descriptor, offset, buffers)))
            self._wait()
        except OSError as error:
            self.release(extent)
            where = self._folder or tempfile.gettempdir()
            raise DiskError(
                f"{where}: states of idle clients could not be written ({error.strerror or error})."
                " Free disk space and resume the run, or set placement.client_bytes_per_actor higher."
            ) from None
        return extent

    def read(self, extent: Extent, buffers: Buffers) -> None:
        """Reads a part of the file into buffers of the sizes that were written.

        Raises:
            OSError: the disk cannot be read.
        """
        pending = self._pending.get(extent.offset)
        if pending is None:
            _transfer(os.preadv, self._opened(), extent.offset, buffers)
            return
        for target, source in zip(buffers, pending, strict=True):
            target[:] = source

    def release(self, extent: Extent) -> None:
        """Frees a part of the file for another state."""
        self._pending.pop(extent.offset, None)
        self._free.setdefault(extent.num_bytes, []).append(extent.offset)

    def close(self) -> None:
        """Deletes the file."""
        self._thread.shutdown()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, descriptor: int, offset: int, buffers: Buffers) -> None:
        _transfer(os.pwritev, descriptor, offset, buffers)
        # A part that was released meanwhile may already be that of another state, which the thread writes next.
        if self._pending.get(offset) is buffers:
            del self._pending[offset]

    def _wait(self) -> None:
        """Waits until few enough bytes are pending; raises the error of a part that could not be written."""
        while self._writings:
            first = self._writings[0]
            if not first.end.done() and sum(writing.num_bytes for writing in self._writings) <= self._pending_bytes:
                return
            self._writings.popleft()
            first.end.result()

    def _opened(self) -> int:
        if self._file is None:
            folder = self._folder if self._folder is not None and self._folder.is_dir() else None
            # Open until `close`.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        return self._file.fileno()


def _transfer(call: Callable[[int, Buffers, int], int], descriptor: int, offset: int, buffers: Buffers) -> None:
    """Repeats `os.pwritev` or `os.preadv`, which may transfer less than asked for, until all buffers are done."""
    rest = deque(buffer for buffer in buffers if buffer)
    while rest:
        num_bytes = call(descriptor, [*islice(rest, _BUFFERS_OF_CALL)], offset)
        if not num_bytes:
            raise OSError(f"the file of idle clients ends at byte {offset}")
        offset += num_bytes
        while rest and num_bytes >= len(rest[0]):
            num_bytes -= len(rest.popleft())
        if num_bytes:
            rest[0] = rest[0][num_bytes:]
