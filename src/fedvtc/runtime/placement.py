"""What an actor reserves, and how many actors fit where: arithmetic only, no Ray."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError

WAIT = "placement.wait_timeout_s=600"
"""What to set where room may come."""


@dataclass(frozen=True)
class Resources:
    """What an actor reserves, or what a node or a bundle of a placement group has.

    Attributes:
        num_cpus: logical CPUs.
        num_gpus: GPUs; below 1 a share of one.
        memory_bytes: memory as Ray counts it; where it is not known, as much as one likes.
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
    """How many processes, and how full.

    Attributes:
        num_actors: processes that host clients.
        clients_per_actor: most clients that one of them may host.
        num_slots: actors that would fit at a time.
    """

    num_actors: int
    clients_per_actor: int
    num_slots: int


def actor_needs(placement: PlacementConfig, *, has_gpus: bool) -> Resources:
    """What an actor reserves; its clients compute on a GPU where that has one, and on the CPU where not.

    Args:
        placement: `gpus_per_actor` null goes by `accelerator`.
        has_gpus: whether there are GPUs where the actors will be.
    """
    num_gpus = placement.gpus_per_actor
    if num_gpus is None:
        wants_gpu = placement.accelerator == "cuda" or (placement.accelerator == "auto" and has_gpus)
        num_gpus = 1.0 if wants_gpu else 0.0
    return Resources(placement.cpus_per_actor, num_gpus, float(placement.memory_bytes_per_actor or 0))


def num_wanted(placement: PlacementConfig, num_clients: int) -> int:
    """Actors that a run has where there is room for all of them."""
    per_actor = placement.clients_per_actor
    if isinstance(per_actor, str):
        return min(num_clients, placement.max_actors or num_clients)
    return math.ceil(num_clients / per_actor)


def slots(needs: Resources, node: Resources) -> int:
    """Actors that one node has room for at a time."""
    # The small terms keep 0.3 / 0.1 from counting as 2.
    counts = [
        math.floor(has / need + 1e-9)
        for need, has in ((needs.num_cpus, node.num_cpus), (needs.memory_bytes, node.memory_bytes))
        if need > 0 and has < math.inf
    ]
    if needs.num_gpus >= 1:
        counts.append(math.floor(node.num_gpus / needs.num_gpus + 1e-9))
    elif needs.num_gpus > 0:  # A share lies on one GPU.
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
    """Fits the actors that a run begins with into what there is, node by node.

    `auto` takes a slot for every client while there are slots, up to `max_actors`; beyond that an actor takes more than
    one client. Where a run may wait, the actors need not fit now.

    Args:
        placement: how many clients an actor may host, and what may be waited for.
        num_clients: clients to place.
        needs: of an actor.
        free: what each node has free.
        where: what the nodes belong to, for the error.
        total: what each node has in all; None where nobody else is there.
        may_grow: whether more nodes may come, for the error.

    Raises:
        ClusterError: the actors asked for do not fit; says what would.
    """
    num_free, wanted = sum(slots(needs, node) for node in free), num_wanted(placement, num_clients)
    num_all = num_free if total is None else sum(slots(needs, node) for node in total)
    packs_itself, may_wait = placement.clients_per_actor == "auto", placement.wait_timeout_s > 0
    if packs_itself and placement.wait == "all" and may_wait and not num_free:
        # Without one node, what an autoscaler may bring is not known; `max_actors` is what the user counts on.
        num_actors = min(wanted, num_all or placement.max_actors or 1)
    elif packs_itself or placement.wait == "min":
        num_actors = max(1, min(wanted, num_free))
    else:
        num_actors = wanted
    if num_actors > num_free and not may_wait:
        rest = ""
        if num_all >= num_actors:
            rest = f" Other runs have it; {WAIT} waits."
        elif may_grow:
            rest = f" Where nodes are still to come, {WAIT} waits for them."
        raise ClusterError(_too_small(placement, num_actors, needs, free, where) + rest)
    most = num_clients if packs_itself and num_actors < num_clients else math.ceil(num_clients / num_actors)
    return Packing(num_actors, most, num_free)


def _too_small(
    placement: PlacementConfig, num_actors: int, needs: Resources, nodes: Sequence[Resources], where: str
) -> str:
    """What is short, and what would fit, in one line."""
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
        what = f"{actors} {needs} do not fit; counted node by node, {where} has room for "
        what += str(sum(slots(needs, node) for node in nodes))
    for _, key, need, supplies in kinds:
        if need and sum(supplies) < math.inf and sum(math.floor(supply / need) for supply in supplies) < num_actors:
            fixes += _fitting(placement, key, num_actors, supplies)
    return f"placement: {what}." + _set(fixes)


def _set(fixes: Sequence[str]) -> str:
    return f" Set {' or '.join(fixes)}." if fixes else ""


def _fitting(placement: PlacementConfig, key: str, num_actors: int, supplies: Sequence[float]) -> list[str]:
    """The largest reservation of one kind of which every actor finds one, as a fix; none where nothing would do."""
    if key == "gpus":  # An actor lies on one GPU, so a share is 1/k.
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
