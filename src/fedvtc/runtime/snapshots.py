"""Clients' states on their way to a checkpoint, taken while the next round may already go on.

A client that is not at work does not change, so its state is read where it lies, by the thread that writes. Only where
a client is to work again before its turn to be written, its state is set aside.
"""

import threading
from collections.abc import Callable

MAX_ASIDE_BYTES = 2**30
"""States set aside at a time; with more, work waits for the writing."""

Pack = Callable[[], bytes]


class Snapshots:
    """The clients of one process that are held for a checkpoint; one thread works on them, another one writes them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[int] = set()
        self._reading: set[int] = set()
        self._aside: dict[int, bytes] = {}

    def hold(self, client: int) -> None:
        """The state that the client has now is to be written; called before `take` and before its next work."""
        with self._changed:
            self._aside.pop(client, None)
            self._held.add(client)

    def take(self, client: int, pack: Pack) -> bytes:
        """The state that the client had when it was held; called by the thread that writes.

        Args:
            client: its number.
            pack: reads the client's state as it is now.
        """
        with self._changed:
            self._held.discard(client)
            if client in self._aside:
                content = self._aside.pop(client)
                self._changed.notify_all()
                return content
            self._reading.add(client)
        try:
            return pack()
        finally:
            with self._changed:
                self._reading.discard(client)
                self._changed.notify_all()

    def before_change(self, client: int, pack: Pack) -> None:
        """Returns once the client may change; called by the thread that works."""
        with self._changed:
            self._changed.wait_for(lambda: self._may_go_on(client))
            if client in self._held:
                # In this order: a state that could not be packed is still held.
                self._aside[client] = pack()
                self._held.discard(client)

    def _may_go_on(self, client: int) -> bool:
        if client in self._reading:
            return False
        return client not in self._held or sum(map(len, self._aside.values())) < MAX_ASIDE_BYTES
