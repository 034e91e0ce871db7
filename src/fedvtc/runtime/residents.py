"""The clients of a process; the states of idle clients leave memory beyond a limit.

The problem
    Hundreds of clients with large models do not fit into memory together, while few of them work in a round. Two
    threads use clients: one works on them, the other writes their states into checkpoints.

The solution
    The client that worked longest ago is emptied first: its bytes go into a file and come back when a thread uses the
    client again. A client that a thread uses is never emptied. A client that no task has changed since its bytes were
    last written is not written again; a client that was only built from its spec is dropped and built again.

States of a client
    | in memory | in the file | state                                    | next state                                |
    |-----------|-------------|------------------------------------------|-------------------------------------------|
    | yes       | no          | new, or changed since it was last read   | emptied: written. Never changed: dropped  |
    | yes       | yes         | unchanged since it was last read         | emptied: bytes dropped. Changed: new      |
    | no        | yes         | emptied                                  | used: read                                |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedvtc.learning.client.emptying import ClientBytes, Layout
from fedvtc.storage.idle_file import Extent, IdleFile

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient


PENDING_BYTES = 2**28
"""Bytes of states that may wait in memory for the disk, if they are at most half of the limit."""


@dataclass(eq=False)
class _Resident:
    """A client, and the place of its state.

    Attributes:
        client: the client.
        is_kept: False while the client is as built from its spec.
        num_bytes: bytes of the state, measured when a thread last ended to use the client.
        emptied: the bytes' way back into the client; None while the state is in memory.
        extent: the part of the file that holds the state; None if the file does not.
        layout: the form of the state in the file.
    """

    client: FederatedClient
    is_kept: bool
    num_bytes: int = 0
    emptied: ClientBytes | None = None
    extent: Extent | None = None
    layout: Layout | None = None


class Residents:
    """Clients by number, of which the states of at most `limit_bytes` stay in memory between steps.

    Args:
        build: builds a client from its spec.
        limit_bytes: bytes of all states, those on their way to the disk among them; None keeps all states in memory.
        folder: folder of the file for the other states, as in `IdleFile`.
    """

    def __init__(
        self, build: Callable[[int], FederatedClient], limit_bytes: int | None, folder: Path | None = None
    ) -> None:
        pending_bytes = min(PENDING_BYTES, (limit_bytes or 0) // 2)
        self._build, self._file = build, IdleFile(folder, pending_bytes)
        self._limit_bytes = None if limit_bytes is None else limit_bytes - pending_bytes
        self._absent: set[int] = set()
        self._lock = threading.RLock()
        self._residents: dict[int, _Resident] = {}
        # The clients whose states are in memory; the client that was used longest ago is first.
        self._in_memory: dict[int, None] = {}
        self._num_bytes = 0
        self._used_by: dict[int, int] = {}

    def __contains__(self, client_id: int) -> bool:
        """Returns True if the client is built, in memory or not."""
        return client_id in self._residents

    def peek(self, client_id: int) -> FederatedClient | None:
        """Returns the client, perhaps without its state; None if the client is not built."""
        resident = self._residents.get(client_id)
        return None if resident is None else resident.client

    def add(self, client: FederatedClient) -> None:
        """Adds a client whose state does not follow from its spec; this thread uses the client from now on."""
        with self._lock:
            self._add(client, is_kept=True)

    def expect(self, client_id: int) -> None:
        """Has a dropped client built from its spec by its next use."""
        self._absent.discard(client_id)

    def use(self, client_id: int) -> FederatedClient:
        """Returns a client with its state, which stays in memory until this thread uses another client.

        The first use builds the client from its spec.

        Raises:
            KeyError: the client was dropped.
            DiskError: there is no room on the disk for the states of other clients.
            OSError: the client's state cannot be read.
        """
        with self._lock:
            if client_id not in self._residents and client_id not in self._absent:
                return self._add(self._build(client_id), is_kept=False)
            resident = self._residents[client_id]
            self._switch(client_id)
            if resident.emptied is not None:
                assert resident.extent is not None
                self._make_room(resident.num_bytes)
                resident.emptied.fill(partial(self._file.read, resident.extent))
                resident.emptied = None
                self._num_bytes += resident.num_bytes
            self._in_memory.pop(client_id, None)
            self._in_memory[client_id] = None
            return resident.client

    def release(self) -> None:
        """Ends the use of a client by this thread."""
        with self._lock:
            self._switch(None)

    def changed(self, client_id: int) -> None:
        """Marks a client, which this thread uses, as changed: the file no longer holds its state."""
        with self._lock:
            resident = self._residents[client_id]
            resident.is_kept = True
            self._forget_extent(resident)

    def keep(self, client_id: int) -> None:
        """Builds a client if needed, and keeps the client even if no task changes it."""
        with self._lock:
            if client_id not in self._residents:
                self.use(client_id)
            self._residents[client_id].is_kept = True

    def drop(self, client_id: int) -> None:
        """Removes a client and its state: the client cannot be used until `add` or `expect`."""
        with self._lock:
            self._absent.add(client_id)
            self._remove(client_id)

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()

    def _add(self, client: FederatedClient, *, is_kept: bool) -> FederatedClient:
        self._switch(client.id)
        self._residents[client.id] = _Resident(client, is_kept)
        self._in_memory[client.id] = None
        self._absent.discard(client.id)
        return client

    def _remove(self, client_id: int) -> None:
        resident = self._residents.pop(client_id, None)
        if resident is None:
            return
        self._forget_extent(resident)
        if client_id in self._in_memory:
            del self._in_memory[client_id]
            self._num_bytes -= resident.num_bytes

    def _switch(self, client_id: int | None) -> None:
        """Ends the use of this thread's client, whose state may have grown, and begins that of another."""
        thread = threading.get_ident()
        before = self._used_by.get(thread)
        if before == client_id:
            return
        if client_id is None:
            del self._used_by[thread]
        else:
            self._used_by[thread] = client_id
        # A client that another thread uses may be changing; its bytes are counted when that thread ends its use.
        in_use = before in self._used_by.values()
        if self._limit_bytes is None or before not in self._in_memory or before is None or in_use:
            return
        resident = self._residents[before]
        num_bytes = ClientBytes(resident.client).num_bytes
        self._num_bytes += num_bytes - resident.num_bytes
        resident.num_bytes = num_bytes
        self._make_room(0)

    def _make_room(self, num_bytes: int) -> None:
        """Empties clients that no thread uses, until the states and further bytes are within the limit."""
        if self._limit_bytes is None or self._num_bytes + num_bytes <= self._limit_bytes:
            return
        used = set(self._used_by.values())
        for client_id in [client_id for client_id in self._in_memory if client_id not in used]:
            if self._num_bytes + num_bytes <= self._limit_bytes:
                return
            resident = self._residents[client_id]
            if resident.is_kept:
                self._empty(resident)
                del self._in_memory[client_id]
                self._num_bytes -= resident.num_bytes
            else:
                self._remove(client_id)

    def _empty(self, resident: _Resident) -> None:
        found = ClientBytes(resident.client)
        # An evaluation may have restored the state into new tensors in another order.
        if resident.extent is not None and resident.layout != found.layout:
            self._forget_extent(resident)

        def write(buffers: Sequence[memoryview]) -> None:
            resident.extent = self._file.write(buffers)

        if resident.extent is None:
            found.save(write)
        # Before the bytes go: a signal may interrupt this thread anywhere, while the other thread writes a checkpoint.
        resident.emptied, resident.layout = found, found.layout
        found.drop()

    def _forget_extent(self, resident: _Resident) -> None:
        if resident.extent is not None:
            self._file.release(resident.extent)
            resident.extent = None
