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

Left = tuple[frozenset[int], frozenset[int]]
"""Clients with an open task and clients with an open rebuild."""


class ActorWatch:
    """The actors that still have calls of a task to run.

    An actor runs calls in the order in which they were sent. So a `ready` call that is sent after all others returns
    once the others are done, or fails when the actor is lost: this call marks the end of the actor's work.
    """

    def __init__(self) -> None:
        self._ends: dict[ObjectRef[Any], ActorHandle] = {}
        self._progress: dict[ActorHandle, tuple[Left, float]] = {}

    @property
    def handles(self) -> list[ActorHandle]:
        """The watched actors, each once."""
        return list(dict.fromkeys(self._ends.values()))

    def add(self, handle: ActorHandle) -> None:
        """Watches the actor from now on; called after the calls of the task were sent to the actor."""
        self._ends[handle.actor.ready.remote()] = handle
        self._progress[handle] = ((frozenset(), frozenset()), time.monotonic())

    def drop(self, handle: ActorHandle) -> None:
        """Stops watching the actor."""
        self._ends = {end: other for end, other in self._ends.items() if other is not handle}

    def wait(self, awaited: Sequence[Any]) -> list[tuple[ActorHandle, RayError]] | None:
        """Waits for one of several references or generators of Ray, for the end of an actor, or for `TICK_S`.

        Args:
            awaited: the references and generators; may repeat.

        Returns:
            None if an awaited object is ready; else the actors that were lost, each with its error.
        """
        unique = {id(each): each for each in awaited}
        ready, _ = ray.wait([*unique.values(), *self._ends], num_returns=1, timeout=TICK_S)
        if any(id(each) in unique for each in ready):
            return None
        lost = []
        for end in ready:
            handle = self._ends.pop(end)
            try:
                ray.get(end)
            except RayError as error:
                lost.append((handle, error))
        return lost

    def stalled_s(self, handle: ActorHandle, left: Left) -> float:
        """Returns the seconds since one of the actor's calls was last done.

        The seconds are 0 while the actor has not started, and when all calls are done.

        Args:
            handle: the actor.
            left: the clients whose task is not done, and those whose rebuild is not done.
        """
        is_up = bool(ray.wait([handle.is_up_ref], timeout=0, fetch_local=False)[0])
        before, since_s = self._progress[handle]
        if left != before or not any(left) or not is_up:
            since_s = time.monotonic()
            self._progress[handle] = (left, since_s)
        return time.monotonic() - since_s
