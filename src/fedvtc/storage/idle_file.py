"""A file for the states of idle clients of one process: a cache that no other process reads.

The file has no name. So the system deletes the file with its process, however the process ends, and neither a resume
nor the process that replaces a lost one finds stale states. States are written and read by calls and not through a
memory map: a full disk then raises an error instead of killing the process, and the system's cache of the file does not
count as memory of the process.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from fedvtc.errors import DiskError


class Extent(NamedTuple):
    """A part of the file."""

    offset: int
    num_bytes: int


class IdleFile:
    """Parts of bytes, which are written once and read until they are released.

    Args:
        folder: folder on the disk to use; None, or a folder that this node lacks, takes the system's temporary folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def write(self, buffers: Sequence[memoryview]) -> Extent:
        """Writes buffers one after another into a free part of the file.

        Raises:
            DiskError: the disk is full, or cannot be written.
        """
        num_bytes = sum(len(buffer) for buffer in buffers)
        # The clients of one backbone have equally many bytes, so a released part fits another client.
        offsets = self._free.get(num_bytes)
        offset = offsets.pop() if offsets else self._end
        extent = Extent(offset, num_bytes)
        self._end = max(self._end, offset + num_bytes)
        try:
            descriptor = self._opened()
            for buffer in buffers:
                while buffer:
                    num_written = os.pwrite(descriptor, buffer, offset)
                    offset, buffer = offset + num_written, buffer[num_written:]
        except OSError as error:
            self.release(extent)
            where = self._folder or tempfile.gettempdir()
            raise DiskError(
                f"{where}: states of idle clients could not be written ({error.strerror or error})."
                " Free disk space and resume the run, or set placement.client_bytes_per_actor higher."
            ) from None
        return extent

    def read(self, extent: Extent, buffers: Sequence[memoryview]) -> None:
        """Reads a part of the file into buffers, which together have the size of the part.

        Raises:
            OSError: the disk cannot be read.
        """
        descriptor, offset = self._opened(), extent.offset
        for buffer in buffers:
            while buffer:
                num_read = os.preadv(descriptor, [buffer], offset)
                if not num_read:
                    raise OSError(f"the file of idle clients ends at byte {offset}")
                offset, buffer = offset + num_read, buffer[num_read:]

    def release(self, extent: Extent) -> None:
        """Frees a part of the file for another state."""
        self._free.setdefault(extent.num_bytes, []).append(extent.offset)

    def close(self) -> None:
        """Deletes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            folder = self._folder if self._folder is not None and self._folder.is_dir() else None
            # Open until `close`.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        return self._file.fileno()
