"""What a client's state follows from: a checkpoint and the steps that it took since.

A client is a function of its spec, of the broadcasts that it got and of keyed randomness. So a lost one can be built
again anywhere: from nothing or from a checkpoint, and then step by step, to the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedvtc.storage.checkpoints import CheckpointStore, Manifest

CHANGING = ("run_round", "finish")
"""Tasks of `ClientHost` after which a client is another."""


@dataclass(frozen=True, eq=False)
class Step:
    """One changing task that was asked of clients.

    Attributes:
        task: of `CHANGING`.
        round: the round in which they took it; what follows the last round counts as one round more.
        broadcast: what they got, as the pool keeps it: itself, or a reference.
        clients: those that completed it.
    """

    task: str
    round: int
    broadcast: Any
    clients: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class History:
    """All that it takes to build a client again.

    Attributes:
        store: where the checkpoints are; None where there are none.
        checkpoints: to start from, the newest first.
        from_nothing: whether the steps reach back to the first round, so that no checkpoint is needed.
        steps: task, round and broadcast of each step that the client took since the oldest of these, in order.
    """

    store: CheckpointStore | None
    checkpoints: tuple[Manifest, ...]
    from_nothing: bool
    steps: tuple[tuple[str, int, Any], ...]


class Lineage:
    """The steps of all clients since the oldest checkpoint that may still be needed.

    Args:
        store: where checkpoints are written; None keeps every step.
        start: the checkpoint that a resumed run starts from.
    """

    def __init__(self, store: CheckpointStore | None = None, start: Manifest | None = None) -> None:
        self._store = store
        self._checkpoints = [start] if start else []
        self._from_nothing = start is None
        self._steps: list[Step] = []

    def begin(self, task: str, round: int, broadcast: Any) -> Step:
        """Notes a step; the pool adds each client that completes it."""
        step = Step(task, round, broadcast)
        self._steps.append(step)
        return step

    def saved(self, checkpoints: Sequence[Manifest]) -> None:
        """From now on clients start from these whole checkpoints of rounds; older steps are forgotten."""
        known = [manifest for manifest in checkpoints if self._from_nothing or manifest.round >= self._oldest_round]
        if not known:
            return
        self._checkpoints = sorted(known, key=lambda manifest: -manifest.round)
        self._steps = [step for step in self._steps if step.round > self._oldest_round]
        self._from_nothing = False

    def changed_since(self, round: int) -> set[int]:
        """The clients that took a step after this round, which is not before the oldest of the checkpoints."""
        return {client for step in self._steps if step.round > round for client in step.clients}

    def history(self, client: int) -> History:
        """How to build the client as it is now."""
        steps = tuple((step.task, step.round, step.broadcast) for step in self._steps if client in step.clients)
        return History(self._store, tuple(self._checkpoints), self._from_nothing, steps)

    @property
    def num_steps(self) -> int:
        """Steps that are kept."""
        return len(self._steps)

    @property
    def _oldest_round(self) -> int:
        return self._checkpoints[-1].round if self._checkpoints else 0
