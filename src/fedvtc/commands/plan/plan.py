"""What a run would do: who holds what, what crosses the wire, and whether it all fits; nothing is trained.

Shape suffixes: K clients, C classes.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import Config
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.cluster import address_of, check_address, count_cpus, nodes_elsewhere
from fedvtc.runtime.placement import Packing, Resources, actor_needs, pack

ACTOR_BYTES = 500_000_000
"""Memory of an actor's process once torch and lightning are imported, before any client is in it."""

RAY_MEMORY_SHARE = 0.7
"""Of a machine's memory, what Ray gives to actors; the rest is for its object store."""

COPIES_OF_WEIGHTS = 4
"""Weights, gradients and the two moments of Adam, each of 4 bytes."""


@dataclass(frozen=True)
class Plan:
    """All that a plan shows."""

    config: Config
    free: Sequence[Resources]
    needs: Resources
    packing: Packing
    costs_K: list[float]
    hosted: list[list[int]]
    class_names: tuple[str, ...]
    counts_KC: NDArray[np.int64]
    backbones: list[str]
    parameters: dict[str, int]
    payload_bytes: dict[str, dict[str, int]]
    dataset_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Memory of all processes together, with the images once: an estimate without activations."""
        weights = sum(self.parameters[name] for name in self.backbones) * 4 * COPIES_OF_WEIGHTS
        return (self.packing.num_actors + 1) * ACTOR_BYTES + weights + self.dataset_bytes


def pack_clients(
    config: Config, free: Sequence[Resources], total: Sequence[Resources], where: str
) -> tuple[Resources, Packing]:
    """What an actor reserves, and how the clients of a config are laid onto nodes; as a run does it.

    Args:
        config: the whole config.
        free: what each node has free; none where that is not known, and there is room for all.
        total: what each has in all.
        where: what the nodes belong to, for the error.

    Raises:
        ClusterError: if the actors asked for do not fit, with what would.
    """
    placement, num_clients = config.placement, config.population.num_clients
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in total))
    if placement.pool == "inline":
        return needs, Packing(num_actors=0, clients_per_actor=num_clients, num_slots=1)
    # No share spans two GPUs, so a whole one for each is always enough.
    roomy = [Resources(num_clients * needs.num_cpus, num_clients * math.ceil(needs.num_gpus))]
    grows = not is_here(config)
    return needs, pack(placement, num_clients, needs, free or roomy, where, total=total or roomy, may_grow=grows)


def nodes_of(config: Config) -> tuple[list[Resources], list[Resources]]:
    """What each node has free where the clients of a config would live, and in all; empty where no cluster answers.

    Raises:
        ClusterError: the address is not one of a node, so a run would not find the cluster either.
    """
    cluster, placement = config.cluster, config.placement
    if not is_here(config):
        address, source = address_of(cluster)
        check_address(address, source)
        try:
            return nodes_elsewhere(address, source)
        except ClusterError:
            return [], []
    num_gpus = cluster.num_gpus
    if num_gpus is None and placement.gpus_per_actor != 0 and placement.accelerator != "cpu":
        import torch

        num_gpus = torch.cuda.device_count()
    memory_bytes = RAY_MEMORY_SHARE * (physical_memory_bytes() or math.inf)
    here = [Resources(float(cluster.num_cpus or count_cpus()), float(num_gpus or 0), memory_bytes)]
    return here, here


def is_here(config: Config) -> bool:
    """Whether the clients live on this machine; the size of a cluster elsewhere is not looked up."""
    return config.placement.pool == "inline" or not (config.cluster.address or os.environ.get("RAY_ADDRESS"))


def make_plan(config: Config) -> Plan:
    """Loads the data, draws the partition and builds each backbone once.

    Raises:
        DataError: if the data are absent or the partition is impossible.
        ClusterError: if the actors do not fit, or the address is not one of a cluster's nodes.
    """
    free, total = nodes_of(config)
    where = "this machine" if is_here(config) else "the cluster, as it is now,"
    needs, packing = pack_clients(config, free, total, where)
    # Here and not at the top: the check of a config must answer without waiting for PyTorch.
    from fedvtc.learning.methods import Task, build, largest_bytes
    from fedvtc.learning.models import parameter_counts
    from fedvtc.learning.population import Population
    from fedvtc.runtime.balance import balance
    from fedvtc.runtime.opening import client_costs

    population = Population.of(config)
    dataset, specs = population.dataset, population.specs
    num_clients, feature_size = config.population.num_clients, config.population.feature_size
    backbones = [spec.backbone for spec in specs]
    head = (feature_size + 1) * dataset.num_classes
    counts = parameter_counts(
        backbones, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=feature_size
    )
    costs_K = client_costs(config, dataset, backbones, [len(spec.indices_N) for spec in specs])
    return Plan(
        config=config,
        free=free,
        needs=needs,
        packing=packing,
        costs_K=costs_K,
        hosted=balance(costs_K, packing.num_actors or 1, packing.clients_per_actor),
        class_names=dataset.class_names,
        counts_KC=population.class_counts_KC,
        backbones=backbones,
        parameters={name: count + head for name, count in counts.items()},
        payload_bytes=largest_bytes(build(config.method, Task.of(config, dataset)), num_clients),
        dataset_bytes=dataset.train.images_NCHW.nbytes + dataset.test.images_NCHW.nbytes,
    )


def physical_memory_bytes() -> int | None:
    """This machine's memory; None where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # Not known on every system.
        return None
