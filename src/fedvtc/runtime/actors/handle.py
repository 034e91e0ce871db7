"""A home: an actor as the coordinator sees it, with its place and the clients that live in it."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.actors.slots import Place


class Home:
    """An actor, its place, the clients that live in it, and whether it has come up.

    Args:
        actor: the handle.
        place: where it is, or will be once there is room.
        specs: its clients.
    """

    def __init__(self, actor: Any, place: Place, specs: Sequence[ClientSpec]) -> None:
        self.actor, self.place, self.specs = actor, place, list(specs)
        self.up, self._began_s = actor.ready.remote(), time.monotonic()
        self._is_known = False

    @property
    def clients(self) -> list[int]:
        """The numbers of its clients."""
        return [spec.client for spec in self.specs]

    @property
    def has_come_up(self) -> bool:
        """Whether it ever answered."""
        try:
            return bool(ray.wait([self.up], timeout=0)[0] and ray.get(self.up))
        except RayError:
            return False

    def waits_in_vain(self, timeout_s: float) -> bool:
        """Whether it has not come up for so long, and has no place: its node died, and no other has room."""
        if self._is_known or time.monotonic() - self._began_s <= timeout_s:
            return False
        # Remembered, for this is asked of every actor each time that another one is done.
        self._is_known = bool(ray.wait([self.up], timeout=0, fetch_local=False)[0])
        return not self._is_known and not self.place.is_there
