"""Snapshots: the states of clients for a checkpoint, written while the next round may already run.

An idle client does not change, so the thread that writes reads the state directly from the client. Only if a client has
to work before its state is written, a copy of the state is set aside first.
"""

import io
import threading
from collections.abc import Iterable

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints.shard_file import Save, Sink

MAX_ASIDE_BYTES = 2**30
"""Largest size of all copies together; beyond, a client waits with its work until states are written."""


class Snapshots:
    """The held states of the clients of one process; one thread works on the clients, another writes the states."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[int] = set()
        self._reading: set[int] = set()
        self._aside: dict[int, bytes] = {}

    def hold(self, client: int) -> None:
        """Holds the client's present state for the next `save`; called by the thread that works."""
        with self._changed:
            self._aside.pop(client, None)
            self._held.add(client)

    def save(self, client: int, save: Save, file: Sink) -> None:
        """Writes the held state of the client; called by the thread that writes.

        Args:
            client: the number of the client.
            save: function that writes the client's present state.
            file: the file to write to.

        Raises:
            CheckpointError: no state of the client is held, because its process was lost and replaced.
        """
        with self._changed:
            if client not in self._held and client not in self._aside:
                raise CheckpointError(f"client {client}: its process was lost after the checkpoint began")
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

    def release(self, clients: Iterable[int]) -> None:
        """Drops states that were held and not written, after a failure; called by the thread that writes.

        Otherwise copies of the states could fill the memory, and a client that waits for room would wait forever.
        """
        with self._changed:
            for client in clients:
                self._held.discard(client)
                self._aside.pop(client, None)
            self._changed.notify_all()

    def before_change(self, client: int, save: Save) -> None:
        """Returns once the client may change; sets a held state aside; called by the thread that works.

        Args:
            client: the number of the client.
            save: function that writes the client's present state.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._may_change(client))
            if client in self._held:
                # Removed last, so that a state that could not be set aside is still held.
                save(memory := io.BytesIO())
                self._aside[client] = memory.getvalue()
                self._held.discard(client)

    def _may_change(self, client: int) -> bool:
        if client in self._reading:
            return False
        return client not in self._held or sum(map(len, self._aside.values())) < MAX_ASIDE_BYTES
