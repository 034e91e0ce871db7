"""Memory for the float images of the clients of a process, so that the images of a client are converted once."""

import weakref


class ImageMemory:
    """A number of bytes that clients share.

    A client takes bytes at its first step, and keeps them: with random participants, to replace the images of a client
    by those of another would save no conversion.

    Args:
        limit_bytes: bytes of all float images.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._free_bytes = limit_bytes

    def take(self, owner: object, num_bytes: int) -> bool:
        """Takes bytes for as long as the owner lives; returns False, and takes none, if too few are left."""
        if num_bytes > self._free_bytes:
            return False
        self._free_bytes -= num_bytes
        weakref.finalize(owner, self._give_back, num_bytes)
        return True

    def _give_back(self, num_bytes: int) -> None:
        self._free_bytes += num_bytes
