"""Slots: bundles of Ray's placement groups, each with the resources of one actor."""

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
from fedvtc.runtime.placement import Packing, Resources, actor_needs, num_wanted, pack
from fedvtc.runtime.placement import slots as num_slots

SETTLE_S = 3.0
"""Seconds in which Ray may still report as used what a run that has just ended gave back."""
RACE_TIMEOUT_S = 10.0
"""Seconds to wait for a placement group whose resources were free a moment ago."""
GIVE_BACK_TIMEOUT_S = 5.0
"""Seconds to wait for a cluster to remove placement groups; Ray kills a process that waits a minute for a lost head."""
POLL_S = 0.1
Reservation = tuple[Packing, list["Slot"]]
"""The number of actors to start with, and the slots: first those of these actors, then slots that may come later."""
FREE_NOW = "the cluster, as it is now,"


@dataclass(frozen=True, eq=False)
class Slot:
    """Resources for one actor.

    Attributes:
        group: the placement group that holds the slot.
        bundle: the index of the slot's bundle in the group.
        needs: the resources of an actor.
    """

    group: PlacementGroup
    bundle: int
    needs: Resources

    @property
    def is_there(self) -> bool:
        """True if a node provides the slot; Ray notices the death of a node after some seconds."""
        return bool(_nodes_of(_table(self.group)).get(self.bundle))

    def options(self) -> dict[str, Any]:
        """Returns Ray's options for an actor in this slot."""
        strategy = PlacementGroupSchedulingStrategy(self.group, self.bundle)
        amounts = {"num_cpus": self.needs.num_cpus, "num_gpus": self.needs.num_gpus}
        if self.needs.memory_bytes:
            amounts["memory"] = self.needs.memory_bytes
        return {**amounts, "scheduling_strategy": strategy}


def those_there(slots: Sequence[Slot]) -> list[Slot]:
    """Returns the slots that nodes provide, as `Slot.is_there` checks, with one request to Ray for all slots."""
    if not slots:
        return []
    tables: dict[str, dict[str, Any]] = placement_group_table()
    return [slot for slot in slots if _nodes_of(tables.get(slot.group.id.hex(), {})).get(slot.bundle)]


@contextmanager
def reserved(placement: PlacementConfig, num_clients: int, tell: Callable[[str], None]) -> Iterator[Reservation]:
    """Reserves slots for actors until the block ends.

    A process inside a placement group, such as a trial of Ray Tune, uses the bundles of that group as slots, except the
    first bundle, where the process itself runs: a group inside a group would wait forever (ray-project/ray#47439).

    Args:
        placement: the resources of an actor, and how long to wait for resources.
        num_clients: clients to place.
        tell: prints a line while the reservation waits for the cluster.

    Raises:
        ClusterError: the cluster has too few slots, or none came free within `placement.wait_timeout_s`.
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
        # Also after Ctrl-C during the wait.
        if ray.is_initialized():
            _give_back(groups)


def _inside(group: PlacementGroup, placement: PlacementConfig, num_clients: int, needs: Resources) -> Reservation:
    """Uses the bundles of an existing group, without a wait."""
    bundles = sorted(_table(group)["bundles"].items())[1:]
    supplies = [
        Resources(bundle.get("CPU", 0.0), bundle.get("GPU", 0.0), bundle.get("memory", 0.0)) for _, bundle in bundles
    ]
    at_once = replace(placement, wait_timeout_s=0.0)
    packing = pack(at_once, num_clients, needs, supplies, "the placement group of this process")
    slots = [
        Slot(group, bundle, needs)
        for (bundle, _), supply in zip(bundles, supplies, strict=True)
        for _ in range(num_slots(needs, supply))
    ]
    return packing, slots[: packing.num_actors]


def _gathered(
    groups: list[PlacementGroup],
    placement: PlacementConfig,
    num_clients: int,
    needs: Resources,
    tell: Callable[[str], None],
) -> Reservation:
    """Creates placement groups, and adds each to `groups` before the wait for its resources."""
    packing = _packed(placement, num_clients, needs)
    # Another run may take resources that were free a moment ago.
    timeout_s = (
        max(placement.wait_timeout_s, RACE_TIMEOUT_S)
        if packing.num_actors <= packing.num_slots
        else placement.wait_timeout_s
    )

    def reserve(num: int) -> list[Slot]:
        amounts = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": needs.memory_bytes}
        bundle = {name: amount for name, amount in amounts.items() if amount > 0}
        groups.append(placement_group([bundle] * num, strategy=placement.nodes.upper()))
        return [Slot(groups[-1], index, needs) for index in range(num)]

    gang = reserve(packing.num_actors)
    num_more = num_wanted(placement, num_clients) - packing.num_actors if placement.wait == "min" else 0
    more = [slot for _ in range(num_more) for slot in reserve(1)]
    wanted = f"{packing.num_actors} slot{'s' if packing.num_actors > 1 else ''} of {needs}"
    began_s, is_told = time.monotonic(), False
    while _table(groups[0]).get("state") != "CREATED":
        waited_s = time.monotonic() - began_s
        if waited_s > timeout_s:
            fix = "Set placement.wait_timeout_s higher, or placement.cpus_per_actor lower."
            raise ClusterError(f"placement: {wanted} did not come free in {timeout_s:g} s. {fix}")
        if not is_told and waited_s > 1.0:
            tell(f"waiting up to {timeout_s:g} s for {wanted}")
            is_told = True
        time.sleep(POLL_S)
    return packing, [*gang, *more]


def _packed(placement: PlacementConfig, num_clients: int, needs: Resources) -> Packing:
    """Packs into what is free now; if the idle cluster had more room for the run, asks again for `SETTLE_S`."""
    began_s = time.monotonic()
    while True:
        free, total = free_nodes(), all_nodes()
        num_free, num_all = (sum(num_slots(needs, node) for node in nodes) for nodes in (free, total))
        least = min(num_all, 1 if placement.wait == "min" else num_wanted(placement, num_clients))
        if num_free >= least or time.monotonic() - began_s > SETTLE_S:
            return pack(placement, num_clients, needs, free, FREE_NOW, total=total, may_grow=may_grow())
        time.sleep(POLL_S)


def _nodes_of(table: dict[str, Any]) -> dict[int, str]:
    nodes: dict[int, str] = table.get("bundles_to_node_id", {})
    return nodes


def _give_back(groups: Sequence[PlacementGroup]) -> None:
    """Removes the groups if the cluster still answers; a cluster without its head never answers."""

    def remove() -> None:
        for group in groups:
            remove_placement_group(group)

    thread = threading.Thread(target=remove, name="give-back", daemon=True)
    thread.start()
    thread.join(GIVE_BACK_TIMEOUT_S)


def _table(group: PlacementGroup) -> dict[str, Any]:
    table: dict[str, Any] = placement_group_table(group)
    return table
