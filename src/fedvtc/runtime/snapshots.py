"""Clients' states on their way to a checkpoint, taken while the next round may already go on.

A client that is not at work does not change, so its state is read where it lies, by the thread that writes. Only where
a client is to work again before its turn to be written, its state is set aside.
"""

import io
import threading

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints.shard_file import Save, Sink

MAX_ASIDE_BYTES = 2**30
"""States set aside at a time; with more, work waits for the writing."""


class Snapshots:
    """The clients of one process that are held for a checkpoint; one thread works on them, another one writes them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[int] = set()
        self._reading: set[int] = set()
        self._aside: dict[int, bytes] = {}

    def hold(self, client: int) -> None:
        """The state that the client has now is to be written; called before `save` and before its next work."""
        with self._changed:
            self._aside.pop(client, None)
            self._held.add(client)

    def save(self, client: int, save: Save, file: Sink) -> None:
        """Writes the state that the client had when it was held; called by the thread that writes.

        Args:
            client: its number.
            save: writes the client's state as it is now.
            file: what it is written into.

        Raises:
            CheckpointError: nobody has held it; its process was lost since, and this is another one.
        """
        with self._changed:
            if client not in self._held and client not in self._aside:
                raise CheckpointError(f"client {client} is not held, its process was lost")
            self._held.discard(client)
            content = self._aside.pop(client, None)
            if content is None:
                self._reading.add(client)
            self._changed.notify_all()
        try:
            if content is None:
                save(file)
            else:
                file.write(content)
        finally:
            with self._changed:
                self._reading.discard(client)
                self._changed.notify_all()

    def before_change(self, client: int, save: Save) -> None:
        """Returns once the client may change; called by the thread that works.

        Args:
            client: its number.
            save: writes the client's state as it is now.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._may_go_on(client))
            if client in self._held:
                # In this order: a state that could not be set aside is still held.
                save(memory := io.BytesIO())
                self._aside[client] = memory.getvalue()
                self._held.discard(client)

    def _may_go_on(self, client: int) -> bool:
        if client in self._reading:
            return False
        return client not in self._held or sum(map(len, self._aside.values())) < MAX_ASIDE_BYTES
