"""Lineage: the checkpoints and the steps from which the state of a client follows.

A client's state is a function of its spec, of the broadcasts that it received and of keyed randomness. So a lost client
is rebuilt in any process: from its spec or a checkpoint, then step by step, to the same bits.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fedvtc.runtime.tasks import ClientTask
from fedvtc.storage.checkpoints import CheckpointStore, Manifest

CLIENT_BYTES = 70
"""Bytes of a number in the set of clients of a step."""


@dataclass(frozen=True, eq=False)
class Step:
    """One changing task, with the clients that completed the task.

    Attributes:
        task: the name of the task.
        round: the round of the task; a task after the last round counts as one round more.
        broadcast: the broadcast that the clients received, as the pool keeps it: the value, or a reference.
        num_bytes: bytes of the broadcast.
        clients: the clients that completed the task. Only the thread that works on the pool changes this set;
            another thread may read the set once the step is over.
    """

    task: str
    round: int
    broadcast: Any
    num_bytes: int = 0
    clients: set[int] = field(default_factory=set)


class Replay(NamedTuple):
    """One step of one client, to be repeated: the name of the task, the round, and the broadcast."""

    task: str
    round: int
    broadcast: Any


@dataclass(frozen=True)
class History:
    """Instructions to rebuild one client.

    Attributes:
        store: the store of the checkpoints; None without checkpoints.
        checkpoints: the checkpoints to start from, newest first, with the shard of this client alone; a client
            without a shard had its initial state.
        from_nothing: True if the steps start at the first round, so that a rebuild needs no checkpoint.
        steps: the steps of the client since the oldest of the checkpoints, in order.
    """

    store: CheckpointStore | None
    checkpoints: tuple[Manifest, ...]
    from_nothing: bool
    steps: tuple[Replay, ...]

    @property
    def has_state(self) -> bool:
        """True if the client has worked, so that its state does not follow from its spec alone."""
        return bool(self.steps) or any(manifest.shards for manifest in self.checkpoints)


class Lineage:
    """The steps of all clients since the oldest checkpoint that may still be needed.

    Two threads share a lineage: the main thread begins steps and asks for histories while the thread that writes
    checkpoints reports a published checkpoint. A lock keeps every answer consistent and every step recorded.

    Args:
        store: the store of the run's checkpoints; None keeps every step.
        start: the checkpoint that a resumed run starts from.
    """

    def __init__(self, store: CheckpointStore | None = None, start: Manifest | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._checkpoints = [start] if start else []
        self._from_nothing = start is None
        self._steps: list[Step] = []
        self._worked = start.clients if start else set()
        """The clients with a step before the first of `_steps`."""

    def begin(self, task: ClientTask, round: int, broadcast: Any, num_bytes: int = 0) -> Step:
        """Records a step; the pool adds each client that completes the task."""
        step = Step(task.__name__, round, broadcast, num_bytes)
        with self._lock:
            self._steps.append(step)
        return step

    def saved(self, checkpoints: Sequence[Manifest]) -> None:
        """Replaces the checkpoints that clients start from, and drops the steps before the oldest of the checkpoints.

        Args:
            checkpoints: the newest complete checkpoints of rounds; checkpoints before the first recorded step of a
                resumed run are ignored.
        """
        with self._lock:
            first = 0 if self._from_nothing else self._oldest_round
            usable = [manifest for manifest in checkpoints if manifest.round >= first]
            if not usable:
                return
            self._checkpoints = sorted(usable, key=lambda manifest: -manifest.round)
            oldest = self._oldest_round
            # The clients of later steps are not read here: the thread that works may add a client meanwhile.
            self._worked = self._worked.union(*(step.clients for step in self._steps if step.round <= oldest))
            self._steps = [step for step in self._steps if step.round > oldest]
            self._from_nothing = False

    def changed_since(self, round: int) -> set[int]:
        """Returns the clients that completed a step after a round, which must not be before the oldest checkpoint."""
        with self._lock:
            return {client for step in self._steps if step.round > round for client in step.clients}

    def bytes_since(self, round: int) -> int:
        """Returns the bytes of the recorded steps after a round, about."""
        with self._lock:
            later = [step for step in self._steps if step.round > round]
            return sum(step.num_bytes + CLIENT_BYTES * len(step.clients) for step in later)

    def worked(self) -> set[int]:
        """Returns the clients that have completed a step; the seed determines the state of every other client."""
        with self._lock:
            return self._worked.union(*(step.clients for step in self._steps))

    def history(self, client: int) -> History:
        """Returns the instructions to rebuild the client in its current state."""
        with self._lock:
            steps = tuple(
                Replay(step.task, step.round, step.broadcast) for step in self._steps if client in step.clients
            )
            checkpoints = tuple(manifest.of_client(client) for manifest in self._checkpoints)
            return History(self._store, checkpoints, self._from_nothing, steps)

    @property
    def num_steps(self) -> int:
        """Number of recorded steps."""
        return len(self._steps)

    @property
    def _oldest_round(self) -> int:
        return self._checkpoints[-1].round if self._checkpoints else 0
