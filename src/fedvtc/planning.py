"""What `fedvtc plan` prints: who holds what, what crosses the wire, and whether it all fits; nothing is trained.

Shape suffixes: K clients, C classes.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedvtc.config.schema import Config
from fedvtc.errors import ClusterError, UserError

if TYPE_CHECKING:  # The runtime imports PyTorch.
    from fedvtc.runtime.placement import Packing, Resources

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
    free: "Sequence[Resources]"
    needs: "Resources"
    packing: "Packing"
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
    config: Config, free: "Sequence[Resources]", total: "Sequence[Resources]", where: str
) -> "tuple[Resources, Packing]":
    """What an actor reserves, and how the clients of a config are laid onto nodes; as a run does it.

    Args:
        config: the whole config.
        free: what each node has free; none where that is not known, and there is room for all.
        total: what each has in all.
        where: what the nodes belong to, for the error.

    Raises:
        ClusterError: if the actors asked for do not fit, with what would.
    """
    from fedvtc.runtime.placement import Packing, Resources, actor_needs, pack

    placement, num_clients = config.placement, config.population.num_clients
    needs = actor_needs(placement, has_gpus=any(node.num_gpus > 0 for node in total))
    if placement.pool == "inline":
        return needs, Packing(num_actors=0, clients_per_actor=num_clients, num_slots=1)
    roomy = [Resources(num_clients * needs.num_cpus, num_clients * needs.num_gpus)]
    grows = not _is_here(config)
    return needs, pack(placement, num_clients, needs, free or roomy, where, total=total or roomy, may_grow=grows)


def nodes_of(config: Config) -> "tuple[list[Resources], list[Resources]]":
    """What each node has free where the clients of a config would live, and in all; empty where no cluster answers.

    Raises:
        ClusterError: the address is not one of a node, so a run would not find the cluster either.
    """
    from fedvtc.runtime.cluster import address_of, check_address, count_cpus, nodes_elsewhere
    from fedvtc.runtime.placement import Resources

    cluster, placement = config.cluster, config.placement
    if not _is_here(config):
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
    memory_bytes = RAY_MEMORY_SHARE * (_machine_bytes() or math.inf)
    here = [Resources(float(cluster.num_cpus or count_cpus()), float(num_gpus or 0), memory_bytes)]
    return here, here


def _is_here(config: Config) -> bool:
    """Whether the clients live on this machine; the size of a cluster elsewhere is not looked up."""
    return config.placement.pool == "inline" or not (config.cluster.address or os.environ.get("RAY_ADDRESS"))


def make_plan(config: Config) -> Plan:
    """Loads the data, draws the partition and builds each backbone once.

    Raises:
        DataError: if the data are absent or the partition is impossible.
        ClusterError: if the actors do not fit, or the address is not one of a cluster's nodes.
    """
    free, total = nodes_of(config)
    where = "this machine" if _is_here(config) else "the cluster, as it is now,"
    needs, packing = pack_clients(config, free, total, where)
    # Here and not at the top: the check of a config must answer without waiting for PyTorch.
    from fedvtc.data import class_counts, load_dataset, make_partition
    from fedvtc.methods import Task, build
    from fedvtc.models import parameter_counts
    from fedvtc.population import assign_backbones
    from fedvtc.runtime.balance import balance
    from fedvtc.runtime.opening import client_costs

    dataset = load_dataset(config.data)
    num_clients, feature_size = config.population.num_clients, config.population.feature_size
    labels_N = dataset.train.labels_N
    parts = make_partition(labels_N, dataset.num_classes, num_clients, config.partition, config.run.seed)
    backbones = assign_backbones(config.population)
    head = (feature_size + 1) * dataset.num_classes
    counts = parameter_counts(
        backbones, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=feature_size
    )
    costs_K = client_costs(config, dataset, backbones, [len(part) for part in parts])
    return Plan(
        config=config,
        free=free,
        needs=needs,
        packing=packing,
        costs_K=costs_K,
        hosted=balance(costs_K, packing.num_actors or 1, packing.clients_per_actor),
        class_names=dataset.class_names,
        counts_KC=class_counts(labels_N, parts, dataset.num_classes),
        backbones=backbones,
        parameters={name: count + head for name, count in counts.items()},
        payload_bytes=build(config.method, Task.of(config, dataset)).payload_bytes(num_clients),
        dataset_bytes=dataset.train.images_NCHW.nbytes + dataset.test.images_NCHW.nbytes,
    )


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the tables of a plan."""
    from fedvtc.reporting.tables import class_table

    console.print(class_table(plan.counts_KC, plan.class_names, plan.backbones))
    console.print()
    console.print(_parameters_table(plan))
    console.print()
    console.print(_payload_table(plan))
    console.print()
    console.print("\n".join(placement_lines(plan, _machine_bytes())), highlight=False, markup=False, soft_wrap=True)


def save_picture(plan: Plan, path: Path | None) -> Path:
    """Writes the partition as a PNG, and returns where.

    Args:
        plan: the plan.
        path: the file, whatever its name ends in; None takes plans/DATA-PARTITION-sSEED.png under `run.output_dir`.

    Raises:
        UserError: if the file cannot be written.
    """
    from fedvtc.naming import partition_name
    from fedvtc.reporting.figures import partition_picture

    run = plan.config.run
    path = path or Path(run.output_dir) / "plans" / f"{partition_name(plan.config)}-s{run.seed}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partition_picture(plan.counts_KC, path, plan.class_names, plan.backbones)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Name a file with --picture.") from None
    return path


def _parameters_table(plan: Plan) -> Table:
    from fedvtc.reporting.tables import human_bytes, human_count

    table = _table("Models, with the classifier's head")
    for name in ("backbone", "clients", "parameters", "weights"):
        table.add_column(name, justify="left" if name == "backbone" else "right")
    for name, num in plan.parameters.items():
        table.add_row(name, str(plan.backbones.count(name)), human_count(num), human_bytes(4 * num))
    return table


def _payload_table(plan: Plan) -> Table:
    from fedvtc.reporting.tables import human_bytes
    from fedvtc.seeding import choose_participants

    run, num_clients = plan.config.run, plan.config.population.num_clients
    chosen = choose_participants(run.seed, round=1, num_clients=num_clients, participation=run.participation)
    table = _table(f"Bytes per round, at most, with {len(chosen)} of {num_clients} clients")
    for name in ("kind", "up, a client", "up, all", "down, a client", "down, all"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    up, down = plan.payload_bytes["up"], plan.payload_bytes["down"]
    rows = [(kind, up.get(kind, 0), down.get(kind, 0)) for kind in dict.fromkeys([*up, *down])]
    for kind, kind_up, kind_down in [*rows, ("total", sum(up.values()), sum(down.values()))]:
        sizes = (kind_up, kind_up * len(chosen), kind_down, kind_down * len(chosen))
        table.add_row(kind, *(human_bytes(size) for size in sizes))
    return table


def placement_lines(plan: Plan, machine_bytes: int | None) -> list[str]:
    """Processes, slots and memory in words, with what would help where they do not fit.

    Args:
        plan: the plan.
        machine_bytes: this machine's memory; None where it cannot be told.
    """
    from fedvtc.reporting.tables import human_bytes

    packing, placement = plan.packing, plan.config.placement
    num_clients = plan.config.population.num_clients
    needed = human_bytes(plan.memory_bytes)
    on_gpu = plan.needs.num_gpus > 0
    if placement.pool == "inline":
        where = "on the GPU" if on_gpu else "on the CPU"
        lines = [f"Placement: {num_clients} clients in this process, one after another, {where}; no Ray."]
    else:
        lines = [
            f"Placement: {num_clients} clients in {packing.num_actors} actors of {plan.needs}, "
            f"up to {max(map(len, plan.hosted))} in one; {_slots(plan)}.",
            _work(plan, "GPUs" if on_gpu else "CPUs"),
        ]
    lines.append(f"Memory: about {needed} in all, {human_bytes(plan.dataset_bytes)} of it images, once per node.")
    if machine_bytes is not None and _is_here(plan.config) and plan.memory_bytes > machine_bytes:
        has = human_bytes(machine_bytes)
        fix = "population.num_clients" if packing.num_actors <= 1 else "cluster.num_cpus"
        lines.append(f"Memory: {needed} do not fit, this machine has {has}. Set a smaller {fix}.")
    return lines


def _slots(plan: Plan) -> str:
    """Where there is room for how many actors."""
    from fedvtc.runtime.placement import slots

    if not plan.free:
        return "that is with room for all, for no cluster answers"
    if _is_here(plan.config):
        found = f"this machine has slots for {plan.packing.num_slots}"
    else:
        kinds = Counter(slots(plan.needs, node) for node in plan.free)
        each = ", ".join(
            f"{num} on {f'each of {nodes} nodes' if nodes > 1 else '1 node'}"
            for num, nodes in sorted(kinds.items(), reverse=True)
        )
        found = f"the cluster has slots for {plan.packing.num_slots} now: {each}"
    if plan.packing.num_actors <= plan.packing.num_slots:
        return found
    return f"{found}, and the run waits up to {plan.config.placement.wait_timeout_s:g} s for room"


def _work(plan: Plan, device: str) -> str:
    """How evenly the work is spread, as far as it can be guessed."""
    from fedvtc.runtime.balance import loads_of

    loads = loads_of(dict(enumerate(plan.costs_K)), plan.hosted)
    ratio = max(loads) * len(loads) / sum(loads)
    guess = "images times operations of the backbone"
    return f"Work: on {device}; the busiest actor has {ratio:.2f} times the mean of all, counted as {guess}."


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # Not known on every system.
        return None
