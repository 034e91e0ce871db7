"""Counts and hashes a shard during the write, so that memory never holds the whole shard."""

import hashlib
from collections.abc import Callable
from typing import Protocol

from fedvtc.storage.checkpoints.manifest import Shard

PIECE_BYTES = 2**18


class Sink(Protocol):
    """The methods that PyTorch needs of a file to save into."""

    def write(self, content: bytes, /) -> int:
        """Writes the next bytes and returns their number."""

    def flush(self) -> None:
        """Ends the writing."""


Save = Callable[[Sink], object]
"""Writes the whole state of a client or the server into a sink."""


class ShardFile:
    """Passes bytes on to a file in pieces that fit the processor's caches, and counts and hashes the pieces.

    PyTorch writes some hundred bytes at a time, so small pieces are collected.

    Args:
        name: the shard's name.
        file: a file open for writing; its errors pass through.
    """

    def __init__(self, name: str, file: Sink) -> None:
        self._name, self._file = name, file
        self._num_bytes, self._digest = 0, hashlib.sha256()
        self._collected = bytearray()

    def write(self, content: bytes, /) -> int:
        """Collects the bytes, and passes on those that no longer fit a piece; returns the number of bytes."""
        view = memoryview(content).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            part = view[start : start + PIECE_BYTES]
            if len(self._collected) + len(part) > PIECE_BYTES:
                self._pass_on()
            self._collected += part
        return len(view)

    def flush(self) -> None:
        """Does nothing; the code that opened the file syncs the file."""

    def end(self) -> Shard:
        """Writes the collected bytes; returns name, size and hash of all bytes."""
        self._pass_on()
        return Shard(self._name, self._num_bytes, self._digest.hexdigest())

    def _pass_on(self) -> None:
        piece, self._collected = self._collected, bytearray()
        self._file.write(piece)  # type: ignore[arg-type]  # Files take any buffer.
        self._digest.update(piece)
        self._num_bytes += len(piece)
