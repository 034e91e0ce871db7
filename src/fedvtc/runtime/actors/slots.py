"""Rooms for actors: bundles of Ray's placement groups, asked for together and given back together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util import get_current_placement_group
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.cluster import all_nodes, free_nodes, may_grow
from fedvtc.runtime.placement import Packing, Resources, actor_needs, num_wanted, pack, slots

RACE_TIMEOUT_S = 10.0
"""Seconds that actors get to be placed where there was room a moment ago."""
GIVE_BACK_TIMEOUT_S = 5.0
"""Seconds that a cluster gets to take rooms back; Ray ends a process that waits a minute for a head that is gone."""
POLL_S = 0.1
Reservation = tuple[Packing, list["Place"]]
"""How many actors to begin with, and the places: those of these actors come first, others may come up later."""
FREE_NOW = "the cluster, as it is now,"


@dataclass(frozen=True, eq=False)
class Place:
    """Room for one actor.

    Attributes:
        group: whose bundle it lies in.
        bundle: its number.
        needs: of an actor.
    """

    group: PlacementGroup
    bundle: int
    needs: Resources

    @property
    def is_there(self) -> bool:
        """Whether a node has it, as far as Ray knows: a node that died is noticed after some seconds."""
        return bool(_nodes_of(_table(self.group)).get(self.bundle))

    def options(self) -> dict[str, Any]:
        """Options of the actor that comes here."""
        strategy = PlacementGroupSchedulingStrategy(self.group, self.bundle)
        amounts = {"num_cpus": self.needs.num_cpus, "num_gpus": self.needs.num_gpus}
        if self.needs.memory_bytes:
            amounts["memory"] = self.needs.memory_bytes
        return {**amounts, "scheduling_strategy": strategy}


def those_there(places: Sequence[Place]) -> list[Place]:
    """The places that nodes have, as `Place.is_there` says it; Ray is asked once for all."""
    if not places:
        return []
    tables: dict[str, dict[str, Any]] = placement_group_table()
    return [place for place in places if _nodes_of(tables.get(place.group.id.hex(), {})).get(place.bundle)]


@contextmanager
def reserved(placement: PlacementConfig, num_clients: int, tell: Callable[[str], None]) -> Iterator[Reservation]:
    """Rooms for actors, until the block ends.

    In a placement group, such as that of a trial of Ray Tune, its bundles are the rooms, but for the first one, where
    this process runs; a group within a group would wait for ever (ray-project/ray#47439).

    Args:
        placement: what is reserved, and how long it may take.
        num_clients: clients to place.
        tell: gets a line where the cluster is waited for.

    Raises:
        ClusterError: there is too little room, and in `placement.wait_timeout_s` none came free.
    """
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in all_nodes()))
    current = get_current_placement_group()
    if current is not None:
        yield _inside(current, placement, num_clients, needs)
        return
    groups: list[PlacementGroup] = []
    try:
        yield _gathered(groups, placement, num_clients, needs, tell)
    finally:
        # However the block ended, Ctrl-C while it waited included.
        if ray.is_initialized():
            _give_back(groups)


def _inside(group: PlacementGroup, placement: PlacementConfig, num_clients: int, needs: Resources) -> Reservation:
    bundles = sorted(_table(group)["bundles"].items())[1:]
    rooms = [
        Resources(bundle.get("CPU", 0.0), bundle.get("GPU", 0.0), bundle.get("memory", 0.0)) for _, bundle in bundles
    ]
    # All of it is there already.
    at_once = replace(placement, wait_timeout_s=0.0)
    packing = pack(at_once, num_clients, needs, rooms, "the placement group of this process")
    places = [
        Place(group, bundle, needs)
        for (bundle, _), room in zip(bundles, rooms, strict=True)
        for _ in range(slots(needs, room))
    ]
    return packing, places[: packing.num_actors]


def _gathered(
    groups: list[PlacementGroup],
    placement: PlacementConfig,
    num_clients: int,
    needs: Resources,
    tell: Callable[[str], None],
) -> Reservation:
    """Asks for rooms in groups of their own, each noted in `groups` before it is waited for."""
    packing = pack(placement, num_clients, needs, free_nodes(), FREE_NOW, total=all_nodes(), may_grow=may_grow())
    # What was free a moment ago may be another's by now.
    timeout_s = (
        max(placement.wait_timeout_s, RACE_TIMEOUT_S)
        if packing.num_actors <= packing.num_slots
        else placement.wait_timeout_s
    )

    def reserve(num: int) -> list[Place]:
        amounts = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": needs.memory_bytes}
        bundle = {name: amount for name, amount in amounts.items() if amount > 0}
        groups.append(placement_group([bundle] * num, strategy=placement.nodes.upper()))
        return [Place(groups[-1], number, needs) for number in range(num)]

    gang = reserve(packing.num_actors)
    num_more = num_wanted(placement, num_clients) - packing.num_actors if placement.wait == "min" else 0
    more = [place for _ in range(num_more) for place in reserve(1)]
    what = f"{packing.num_actors} actor{'s' if packing.num_actors > 1 else ''} of {needs}"
    began_s, is_told = time.monotonic(), False
    while _table(groups[0]).get("state") != "CREATED":
        waited_s = time.monotonic() - began_s
        if waited_s > timeout_s:
            fix = "Set placement.wait_timeout_s higher, or placement.cpus_per_actor lower."
            raise ClusterError(f"placement: {what} found no room in {timeout_s:g} s. {fix}")
        if not is_told and waited_s > 1.0:
            tell(f"waiting up to {timeout_s:g} s for room for {what}")
            is_told = True
        time.sleep(POLL_S)
    return packing, [*gang, *more]


def _nodes_of(table: dict[str, Any]) -> dict[int, str]:
    nodes: dict[int, str] = table.get("bundles_to_node_id", {})
    return nodes


def _give_back(groups: Sequence[PlacementGroup]) -> None:
    """Gives the rooms back to the cluster, if it still answers; one that has lost its head never does."""

    def remove() -> None:
        for group in groups:
            remove_placement_group(group)

    thread = threading.Thread(target=remove, name="give-back", daemon=True)
    thread.start()
    thread.join(GIVE_BACK_TIMEOUT_S)


def _table(group: PlacementGroup) -> dict[str, Any]:
    table: dict[str, Any] = placement_group_table(group)
    return table
