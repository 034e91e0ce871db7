"""What `fedvtc plan` prints: who holds what, what crosses the wire, and whether it all fits; nothing is trained.

Shape suffixes: K clients, C classes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedvtc.config.schema import Config
from fedvtc.errors import UserError

if TYPE_CHECKING:  # The runtime imports PyTorch.
    from fedvtc.runtime.placement import Packing

ACTOR_BYTES = 500_000_000
"""Memory of an actor's process once torch and lightning are imported, before any client is in it."""

COPIES_OF_WEIGHTS = 4
"""Weights, gradients and the two moments of Adam, each of 4 bytes."""


@dataclass(frozen=True)
class Plan:
    """All that a plan shows."""

    config: Config
    packing: "Packing"
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


def pack_clients(config: Config, num_cpus: int, num_gpus: int) -> "Packing":
    """How the clients of a config are laid onto a machine, or onto a cluster elsewhere that has room for all.

    Args:
        config: the whole config.
        num_cpus: logical CPUs of this machine, where `cluster.num_cpus` does not say.
        num_gpus: its GPUs, where `cluster.num_gpus` does not say.

    Raises:
        ClusterError: if the actors asked for do not fit, with what would.
    """
    from fedvtc.runtime.placement import Packing, Resources, actor_needs, pack

    placement, cluster, num_clients = config.placement, config.cluster, config.population.num_clients
    if placement.pool == "inline":
        return Packing(num_actors=0, clients_per_actor=num_clients, num_slots=1)
    if not _is_here(config):
        needs = actor_needs(placement, has_gpus=False)
        roomy = Resources(num_clients * needs.num_cpus, num_clients * needs.num_gpus)
        return pack(placement, num_clients, needs, [roomy], "the cluster")
    machine = Resources(
        float(num_cpus if cluster.num_cpus is None else cluster.num_cpus),
        float(num_gpus if cluster.num_gpus is None else cluster.num_gpus),
    )
    needs = actor_needs(placement, has_gpus=machine.num_gpus > 0)
    return pack(placement, num_clients, needs, [machine], "this machine")


def _is_here(config: Config) -> bool:
    """Whether the clients live on this machine; the size of a cluster elsewhere is not looked up."""
    return config.placement.pool == "inline" or not (config.cluster.address or os.environ.get("RAY_ADDRESS"))


def make_plan(config: Config) -> Plan:
    """Loads the data, draws the partition and builds each backbone once.

    Raises:
        DataError: if the data are absent or the partition is impossible.
        ClusterError: if the actors do not fit.
    """
    packing = pack_clients(config, os.cpu_count() or 1, _count_gpus(config))
    # Here and not at the top: the check of a config must answer without waiting for PyTorch.
    from fedvtc.data import class_counts, load_dataset, make_partition
    from fedvtc.methods import build
    from fedvtc.models import parameter_counts
    from fedvtc.population import assign_backbones
    from fedvtc.runtime import task_of

    dataset = load_dataset(config.data)
    num_clients, feature_size = config.population.num_clients, config.population.feature_size
    labels_N = dataset.train.labels_N
    parts = make_partition(labels_N, dataset.num_classes, num_clients, config.partition, config.run.seed)
    backbones = assign_backbones(config.population)
    head = (feature_size + 1) * dataset.num_classes
    counts = parameter_counts(
        backbones, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=feature_size
    )
    return Plan(
        config=config,
        packing=packing,
        class_names=dataset.class_names,
        counts_KC=class_counts(labels_N, parts, dataset.num_classes),
        backbones=backbones,
        parameters={name: count + head for name, count in counts.items()},
        payload_bytes=build(config.method, task_of(config, dataset)).payload_bytes(num_clients),
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
        path: the file; None takes plans/DATA-PARTITION-sSEED.png under `run.output_dir`.

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
    if placement.pool == "inline":
        lines = [f"Placement: {num_clients} clients in this process, one after another; no Ray."]
    else:
        each = f"{placement.cpus_per_actor:g} CPU" + (
            f" and {placement.gpus_per_actor:g} GPU" if placement.gpus_per_actor else ""
        )
        slots = f"this machine has slots for {packing.num_slots}"
        if not _is_here(plan.config):
            slots = "that is with room for all, the cluster's slots are counted when the run starts"
        lines = [
            f"Placement: {num_clients} clients in {packing.num_actors} actors of {each}, "
            f"up to {packing.clients_per_actor} in one; {slots}."
        ]
    lines.append(f"Memory: about {needed} in all, {human_bytes(plan.dataset_bytes)} of it images, once per node.")
    if machine_bytes is not None and _is_here(plan.config) and plan.memory_bytes > machine_bytes:
        has = human_bytes(machine_bytes)
        fix = "population.num_clients" if packing.num_actors <= 1 else "cluster.num_cpus"
        lines.append(f"Memory: {needed} do not fit, this machine has {has}. Set a smaller {fix}.")
    return lines


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _count_gpus(config: Config) -> int:
    placement = config.placement
    if placement.gpus_per_actor == 0 or placement.accelerator == "cpu" or config.cluster.num_gpus is not None:
        return 0
    import torch

    return torch.cuda.device_count()


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # Not known on every system.
        return None
