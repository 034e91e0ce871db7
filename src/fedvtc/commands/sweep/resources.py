"""The room that a trial asks Ray for: arithmetic only, no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedvtc.config import Config
from fedvtc.runtime.placement import Resources, actor_needs, pack, slots

HEAD = {"memory": 2**20}
"""What the coordinator of a trial reserves: hardly anything, but a bundle of its own, before those of the actors."""

Bundle = Mapping[str, float]


def bundles(
    config: Config,
    free: Sequence[Resources],
    total: Sequence[Resources],
    num_at_once: int,
    *,
    may_grow: bool = False,
) -> tuple[str, list[Bundle]]:
    """The strategy and the bundles of a trial's placement group: one for its coordinator, then one for each actor.

    Where `placement.clients_per_actor` is `auto`, the slots that are free are shared out evenly among the trials that
    run at a time, or all slots of the cluster where none is; a trial has one actor at least, and no more than it has
    clients or `placement.max_actors` allows. Where the clients live in its own process, that one reserves what an actor
    does.

    Args:
        config: of the trial.
        free: what each node of the cluster has free.
        total: what each has in all.
        num_at_once: trials that would run at a time, were there room for all.
        may_grow: whether more nodes may come, for the error.

    Raises:
        ClusterError: not even one trial would ever fit, and no other nodes are waited for.
    """
    placement, num_clients = config.placement, config.population.num_clients
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in total))
    amounts = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": needs.memory_bytes}
    actor = {name: amount for name, amount in amounts.items() if amount > 0}
    if placement.pool == "inline":
        pack(replace(placement, clients_per_actor="auto"), 1, needs, total, "the cluster", may_grow=may_grow)
        return "PACK", [actor]
    packs_itself = placement.clients_per_actor == "auto"
    # What needs a certain number of actors waits until others have ended.
    goes_by_free = (packs_itself or placement.wait == "min") and any(slots(needs, node) for node in free)
    nodes = free if goes_by_free else total
    packing = pack(placement, num_clients, needs, nodes, "the cluster", may_grow=may_grow)
    num_actors = packing.num_actors
    if packs_itself:
        num_sharing = max(1, min(num_at_once, packing.num_slots))
        num_actors = max(1, min(num_actors, packing.num_slots // num_sharing))
    return placement.nodes.upper(), [HEAD, *[actor] * num_actors]


def described(parts: Sequence[Bundle]) -> str:
    """The bundles of a trial in words, such as `2 actors of 1 CPU`."""
    actors = [part for part in parts if part != HEAD]
    needs = Resources(actors[0].get("CPU", 0.0), actors[0].get("GPU", 0.0), actors[0].get("memory", 0.0))
    return f"{len(actors)} actor{'s' if len(actors) > 1 else ''} of {needs}"
