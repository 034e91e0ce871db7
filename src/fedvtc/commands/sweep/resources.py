"""Computes the resources that a trial reserves in a Ray cluster; imports no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedvtc.config import Config
from fedvtc.runtime.placement import Resources, actor_needs, pack, slots

COORDINATOR = {"memory": 2**20}
"""The bundle of a trial's coordinator, which Tune starts in the first bundle: almost no resources."""

Bundle = Mapping[str, float]
"""Amounts by Ray's name of a resource, reserved together on one node."""


def placement_group(
    config: Config,
    free: Sequence[Resources],
    total: Sequence[Resources],
    num_at_once: int,
    *,
    may_grow: bool = False,
) -> tuple[str, list[Bundle]]:
    """Returns the strategy and the bundles of a trial's placement group.

    The first bundle is the coordinator's, and each actor has one more. With `placement.clients_per_actor: auto` the
    trials that run at once share the free slots evenly, or all slots if no slot is free. A trial has at least one
    actor, and at most as many as it has clients or `placement.max_actors` allows. With `placement.pool: inline` the
    only bundle has the resources of one actor, for the process with the coordinator and all clients.

    Args:
        config: the config of the trial.
        free: the free resources of each node.
        total: all resources of each node.
        num_at_once: the number of trials that run at once if all fit.
        may_grow: True if the cluster may add nodes; used in the error only.

    Raises:
        ClusterError: not even one trial fits the cluster, and `placement.wait_timeout_s` waits for no nodes.
    """
    placement, num_clients = config.placement, config.population.num_clients
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in total))
    amounts = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": needs.memory_bytes}
    actor = {name: amount for name, amount in amounts.items() if amount > 0}
    if placement.pool == "inline":
        pack(replace(placement, clients_per_actor="auto"), 1, needs, total, "the cluster", may_grow=may_grow)
        return "PACK", [actor]
    is_auto = placement.clients_per_actor == "auto"
    # A trial with a fixed number of actors is sized for the whole cluster, and waits until other trials have ended.
    fits_free = (is_auto or placement.wait == "min") and any(slots(needs, node) for node in free)
    nodes = free if fits_free else total
    packing = pack(placement, num_clients, needs, nodes, "the cluster", may_grow=may_grow)
    num_actors = packing.num_actors
    if is_auto:
        num_sharing = max(1, min(num_at_once, packing.num_slots))
        num_actors = max(1, min(num_actors, packing.num_slots // num_sharing))
    return placement.nodes.upper(), [COORDINATOR, *[actor] * num_actors]


def describe(bundles: Sequence[Bundle]) -> str:
    """Returns the bundles of a trial as text, such as `2 slots of 1 CPU`."""
    actors = [bundle for bundle in bundles if bundle != COORDINATOR]
    needs = Resources(actors[0].get("CPU", 0.0), actors[0].get("GPU", 0.0), actors[0].get("memory", 0.0))
    return f"{len(actors)} slot{'s' if len(actors) > 1 else ''} of {needs}"
