"""Nodes that a run would use, and the packing of clients on these nodes. Queries a running cluster, but starts none."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace

from fedvtc.config.schema import Config
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.cluster import address_of, check_address, nodes_elsewhere
from fedvtc.runtime.choice import this_machine
from fedvtc.runtime.placement import Packing, Resources, actor_needs, pack

RAY_MEMORY_SHARE = 0.7
"""Share of a machine's memory that Ray offers to actors; the rest is for its object store."""


def is_local(config: Config) -> bool:
    """Returns True if the clients live on this machine: no pool in Ray, or a cluster that the run starts itself."""
    return config.placement.pool == "inline" or not (config.cluster.address or os.environ.get("RAY_ADDRESS"))


def nodes_of(config: Config) -> tuple[list[Resources], list[Resources]]:
    """Returns the free and the total resources of each node; two empty lists if the cluster does not answer.

    Raises:
        ClusterError: the address is not that of a node, so a run would not find the cluster either.
    """
    if not is_local(config):
        address, source = address_of(config.cluster)
        check_address(address, source)
        try:
            return nodes_elsewhere(address, source)
        except ClusterError:
            return [], []
    node = replace(this_machine(config), memory_bytes=RAY_MEMORY_SHARE * (physical_memory_bytes() or math.inf))
    return [node], [node]


def pack_clients(
    config: Config, free: Sequence[Resources], total: Sequence[Resources], where: str
) -> tuple[Resources, Packing]:
    """Fits the clients of a config into actors on nodes, by the rules of a run.

    Args:
        config: the whole config.
        free: free resources by node; empty if unknown, which counts as enough for every client.
        total: all resources by node.
        where: name of the machine or cluster, for the error.

    Returns:
        The resources that each actor reserves, and the packing.

    Raises:
        ClusterError: the actors do not fit; the message names settings that fit.
    """
    placement, num_clients = config.placement, config.population.num_clients
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in total))
    if placement.pool == "inline":
        return needs, Packing(num_actors=0, clients_per_actor=num_clients, num_slots=1)
    # A fraction of a GPU cannot span two GPUs, so a whole GPU for each client is always enough.
    roomy = [Resources(num_clients * needs.num_cpus, num_clients * math.ceil(needs.num_gpus))]
    may_grow = not is_local(config)
    return needs, pack(placement, num_clients, needs, free or roomy, where, total=total or roomy, may_grow=may_grow)


def physical_memory_bytes() -> int | None:
    """Returns the memory of this machine in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
