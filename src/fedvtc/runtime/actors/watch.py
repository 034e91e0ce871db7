"""Watches the actors of one task: notices actors that end, and measures the time without progress of an actor."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from fedvtc.runtime.actors.handle import ActorHandle

TICK_S = 1.0
"""Longest wait in seconds before actors are checked for hanging."""


class ActorWatch:
    """The actors that still have calls of a task to run.

    An actor runs calls in the order in which they were sent. So a `ready` call that is sent after all others returns
    once the others are done, or fails when the actor is lost: this call marks the end of the actor's work.
    """

    def __init__(self) -> None:
        self._ends: dict[ObjectRef[Any], ActorHandle] = {}
        self._progress: dict[ActorHandle, tuple[frozenset[ObjectRef[Any]], float]] = {}

    @property
    def handles(self) -> list[ActorHandle]:
        """The watched actors, each once."""
        return list(dict.fromkeys(self._ends.values()))

    def add(self, handle: ActorHandle) -> None:
        """Watches the actor from now on; called after the calls of the task were sent to the actor."""
        self._ends[handle.actor.ready.remote()] = handle
        self._progress[handle] = (frozenset(), time.monotonic())

    def drop(self, handle: ActorHandle) -> None:
        """Stops watching the actor."""
        self._ends = {end: other for end, other in self._ends.items() if other is not handle}

    def wait(self, reference: ObjectRef[Any]) -> list[tuple[ActorHandle, RayError]] | None:
        """Waits for the reference, for the end of an actor, or for `TICK_S`.

        Returns:
            None if the reference is ready; else the actors that were lost, each with its error.
        """
        ready, _ = ray.wait([reference, *self._ends], num_returns=1, timeout=TICK_S)
        if reference in ready:
            return None
        lost = []
        for end in ready:
            handle = self._ends.pop(end)
            try:
                ray.get(end)
            except RayError as error:
                lost.append((handle, error))
        return lost

    def progress(self, handle: ActorHandle, calls: Sequence[ObjectRef[Any]]) -> tuple[frozenset[ObjectRef[Any]], float]:
        """Returns the calls that the actor has not done, and the seconds since one of its calls was last done.

        The seconds are 0 while the actor has not started, and when all calls are done.
        """
        _, undone = ray.wait([*calls, handle.is_up_ref], num_returns=len(calls) + 1, timeout=0, fetch_local=False)
        # Compared by the calls that are left: a call whose result was taken is no longer among the given calls.
        left = frozenset(undone)
        before, since_s = self._progress[handle]
        if left != before or not left or handle.is_up_ref in left:
            since_s = time.monotonic()
            self._progress[handle] = (left, since_s)
        return left, time.monotonic() - since_s
