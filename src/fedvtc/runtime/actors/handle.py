"""Handle of an actor: the coordinator's view of one actor, its slot and its clients."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.actors.slots import Slot


class ActorHandle:
    """One actor, its slot, and the clients that live in the actor.

    Attributes:
        actor: Ray's handle of a `ClientActor`.
        slot: the slot that the actor occupies, or waits for.
        specs: the clients that live in the actor.
        is_up_ref: a reference that is ready once the constructor of the actor has returned.
    """

    def __init__(self, actor: Any, slot: Slot, specs: Sequence[ClientSpec]) -> None:
        self.actor, self.slot, self.specs = actor, slot, list(specs)
        self.is_up_ref, self._began_s = actor.ready.remote(), time.monotonic()
        self._has_answered = False

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients that live in the actor."""
        return [spec.client for spec in self.specs]

    @property
    def has_come_up(self) -> bool:
        """True if the actor has answered once."""
        try:
            return bool(ray.wait([self.is_up_ref], timeout=0)[0] and ray.get(self.is_up_ref))
        except RayError:
            return False

    def lacks_slot(self, timeout_s: float) -> bool:
        """Returns True if the actor did not start within the timeout and no node has a slot for the actor."""
        if self._has_answered or time.monotonic() - self._began_s <= timeout_s:
            return False
        # Cached, because this check runs for every other actor each time an actor ends.
        self._has_answered = bool(ray.wait([self.is_up_ref], timeout=0, fetch_local=False)[0])
        return not self._has_answered and not self.slot.is_there
