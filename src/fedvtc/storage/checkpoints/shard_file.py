"""A shard on its way to its file: counted and hashed as it passes, so that it is never held in memory whole."""

import hashlib
from collections.abc import Callable
from typing import Protocol

from fedvtc.storage.checkpoints.manifest import Shard

PIECE_BYTES = 2**18


class Sink(Protocol):
    """What PyTorch asks of a file that it saves into."""

    def write(self, content: bytes, /) -> int:
        """Takes the next bytes."""

    def flush(self) -> None:
        """Follows the last of them."""


Save = Callable[[Sink], object]
"""Writes a client's or the server's state, from its first byte to its last."""


class ShardFile:
    """Passes on what is written, and tells what it was.

    Args:
        name: of the shard.
        file: open for writing; raises its own errors.
    """

    def __init__(self, name: str, file: Sink) -> None:
        self._name, self._file = name, file
        self._num_bytes, self._digest = 0, hashlib.sha256()

    def write(self, content: bytes, /) -> int:
        """Writes and hashes in turn, a piece that fits the processor's caches at a time."""
        view = memoryview(content).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            self._file.write(piece)  # type: ignore[arg-type]  # Every file takes what has a buffer.
            self._digest.update(piece)
        self._num_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Does nothing: what is durable, and when, is the matter of who opened the file."""

    @property
    def shard(self) -> Shard:
        """What has been written so far."""
        return Shard(self._name, self._num_bytes, self._digest.hexdigest())
