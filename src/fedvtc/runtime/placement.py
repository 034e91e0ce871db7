"""Resources of an actor, and the number of actors that fit on nodes: arithmetic only, no Ray."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError

WAIT = "placement.wait_timeout_s=600"
"""Override that lets a run wait for resources."""


@dataclass(frozen=True)
class Resources:
    """Resources that an actor reserves, or that a node or a bundle of a placement group provides.

    Attributes:
        num_cpus: logical CPUs.
        num_gpus: GPUs; below 1 a share of one GPU.
        memory_bytes: memory as Ray counts it; infinite if unknown.
    """

    num_cpus: float
    num_gpus: float = 0.0
    memory_bytes: float = math.inf

    def __str__(self) -> str:
        parts = [f"{self.num_cpus:g} CPU", f"{self.num_gpus:g} GPU", f"{self.memory_bytes / 1e9:g} GB of memory"]
        shown = [True, self.num_gpus > 0, 0 < self.memory_bytes < math.inf]
        return " and ".join(part for part, is_shown in zip(parts, shown, strict=True) if is_shown)


@dataclass(frozen=True)
class Packing:
    """Number of actors, and the most clients of one actor.

    Attributes:
        num_actors: actors that host clients.
        clients_per_actor: most clients that one actor may host.
        num_slots: actors that fit at a time.
    """

    num_actors: int
    clients_per_actor: int
    num_slots: int


def actor_needs(placement: PlacementConfig, *, has_gpus: bool) -> Resources:
    """Returns the resources of an actor; its clients compute on a GPU if the actor reserves a GPU, else on CPUs.

    Args:
        placement: the config section; `accelerator` decides if it is `cpu`, or if `gpus_per_actor` is null.
        has_gpus: True if a node for the actors has a GPU.
    """
    num_gpus = 0.0 if placement.accelerator == "cpu" else placement.gpus_per_actor
    if num_gpus is None:
        wants_gpu = placement.accelerator == "cuda" or (placement.accelerator == "auto" and has_gpus)
        num_gpus = 1.0 if wants_gpu else 0.0
    return Resources(placement.cpus_per_actor, num_gpus, float(placement.memory_bytes_per_actor or 0))


def num_wanted(placement: PlacementConfig, num_clients: int) -> int:
    """Returns the number of actors that a run uses if all actors fit."""
    per_actor = placement.clients_per_actor
    if isinstance(per_actor, str):
        return min(num_clients, placement.max_actors or num_clients)
    return math.ceil(num_clients / per_actor)


def slots(needs: Resources, node: Resources) -> int:
    """Returns the number of actors that fit on one node at a time."""
    # The small terms are needed because 0.3 / 0.1 is below 3.
    counts = [
        math.floor(has / need + 1e-9)
        for need, has in ((needs.num_cpus, node.num_cpus), (needs.memory_bytes, node.memory_bytes))
        if need > 0 and has < math.inf
    ]
    if needs.num_gpus >= 1:
        counts.append(math.floor(node.num_gpus / needs.num_gpus + 1e-9))
    elif needs.num_gpus > 0:  # A share cannot be spread over two GPUs.
        rest, whole = math.modf(node.num_gpus + 1e-9)
        counts.append(int(whole) * math.floor(1 / needs.num_gpus + 1e-9) + math.floor(rest / needs.num_gpus + 1e-9))
    return min(counts)


def pack(
    placement: PlacementConfig,
    num_clients: int,
    needs: Resources,
    free: Sequence[Resources],
    where: str,
    total: Sequence[Resources] | None = None,
    *,
    may_grow: bool = False,
) -> Packing:
    """Fits the first actors of a run into the free resources, node by node.

    `auto` gives each client an actor of its own while slots are free, up to `max_actors`; beyond, an actor hosts more
    than one client. If a run may wait, the actors need not fit now.

    Args:
        placement: the config section with the clients of an actor, and the time to wait.
        num_clients: clients to place.
        needs: the resources of an actor.
        free: the free resources of each node.
        where: name of the machine or cluster, for the error message.
        total: all resources of each node; None if no other run uses the nodes.
        may_grow: True if more nodes may join, for the error message.

    Raises:
        ClusterError: the actors do not fit; the message names settings with which the actors fit.
    """
    num_free, wanted = sum(slots(needs, node) for node in free), num_wanted(placement, num_clients)
    num_all = num_free if total is None else sum(slots(needs, node) for node in total)
    packs_itself, may_wait = placement.clients_per_actor == "auto", placement.wait_timeout_s > 0
    if packs_itself and placement.wait == "all" and may_wait and not num_free:
        # Without any node, the nodes of an autoscaler are unknown, and `max_actors` is the best guess.
        num_actors = min(wanted, num_all or placement.max_actors or 1)
    elif packs_itself or placement.wait == "min":
        num_actors = max(1, min(wanted, num_free))
    else:
        num_actors = wanted
    if num_actors > num_free and not may_wait:
        rest = ""
        if num_all >= num_actors:
            rest = f" Other runs use the rest; {WAIT} waits for them."
        elif may_grow:
            rest = f" If nodes are still to join, {WAIT} waits for them."
        raise ClusterError(_too_small(placement, num_actors, needs, free, where) + rest)
    most = num_clients if packs_itself and num_actors < num_clients else math.ceil(num_clients / num_actors)
    return Packing(num_actors, most, num_free)


def _too_small(
    placement: PlacementConfig, num_actors: int, needs: Resources, nodes: Sequence[Resources], where: str
) -> str:
    """Returns one line: the scarce resource, and settings that fit."""
    has_slot = any(slots(needs, node) for node in nodes)
    is_fixed = placement.clients_per_actor != "auto" and num_actors > 1
    fixes = ["placement.clients_per_actor=auto"] if is_fixed and has_slot else []
    kinds = (
        ("CPU", "cpus", needs.num_cpus, [node.num_cpus for node in nodes]),
        ("GPU", "gpus", needs.num_gpus, [node.num_gpus for node in nodes]),
        ("GB", "memory_bytes", needs.memory_bytes, [node.memory_bytes for node in nodes]),
    )
    actors = f"{num_actors} actor{'s' if num_actors > 1 else ''} x"
    for unit, key, need, supplies in kinds:
        if num_actors * need <= sum(supplies) + 1e-6:
            continue
        scale = 1e9 if unit == "GB" else 1
        total, supply = num_actors * need / scale, sum(supplies) / scale
        units = "GB of memory" if unit == "GB" else unit if total == 1 else f"{unit}s"
        what = f"{actors} {need / scale:g} {unit} {'needs' if num_actors == 1 else 'need'} {total:g} {units}"
        fixes += _fitting(placement, key, num_actors, supplies)
        return f"placement: {what}; {where} has {supply:g}." + _set(fixes)
    if not has_slot:
        what = f"no node of {where} is big enough for one actor of {needs}"
    else:
        num_slots = sum(slots(needs, node) for node in nodes)
        what = f"{actors} {needs} do not fit; counted node by node, {where} has {num_slots} slot{'s' * (num_slots > 1)}"
    for _, key, need, supplies in kinds:
        if need and sum(supplies) < math.inf and sum(math.floor(supply / need) for supply in supplies) < num_actors:
            fixes += _fitting(placement, key, num_actors, supplies)
    return f"placement: {what}." + _set(fixes)


def _set(fixes: Sequence[str]) -> str:
    return f" Set {' or '.join(fixes)}." if fixes else ""


def _fitting(placement: PlacementConfig, key: str, num_actors: int, supplies: Sequence[float]) -> list[str]:
    """Returns the largest reservation of one resource with which all actors fit, as an override; empty if none fits."""
    if key == "gpus":  # An actor uses one GPU, so a share is 1/k.
        if placement.accelerator == "cuda" and not sum(supplies):
            return ["placement.accelerator=cpu"]
        supplies = [1.0] * int(sum(supplies))
    shares = sorted({supply / num for supply in set(supplies) for num in range(1, num_actors + 1) if supply > 0})
    fits = [share for share in shares if sum(math.floor(supply / share + 1e-9) for supply in supplies) >= num_actors]
    if key == "memory_bytes":
        return [f"placement.{key}_per_actor={int(fits[-1])}"] if fits else []
    if not fits:
        return ["placement.gpus_per_actor=0"] if key == "gpus" else []
    # Ray counts in ten-thousandths.
    return [f"placement.{key}_per_actor={math.floor(fits[-1] * 10_000) / 10_000:g}"]
