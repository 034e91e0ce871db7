"""A plan as text, and its partition as a picture."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedvtc.commands.plan.plan import Plan, is_here, physical_memory_bytes
from fedvtc.errors import UserError
from fedvtc.runtime.balance import loads_of
from fedvtc.runtime.placement import slots


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the tables of a plan."""
    from fedvtc.reporting.tables import class_table

    console.print(class_table(plan.counts_KC, plan.class_names, plan.backbones))
    console.print()
    console.print(_parameters_table(plan))
    console.print()
    console.print(_payload_table(plan))
    console.print()
    console.print(
        "\n".join(placement_lines(plan, physical_memory_bytes())), highlight=False, markup=False, soft_wrap=True
    )


def save_picture(plan: Plan, path: Path | None) -> Path:
    """Writes the partition as a PNG, and returns where.

    Args:
        plan: the plan.
        path: the file, whatever its name ends in; None takes plans/DATA-PARTITION-sSEED.png under `run.output_dir`.

    Raises:
        UserError: if the file cannot be written.
    """
    from fedvtc.config.naming import partition_name
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
    from fedvtc.learning.seeding import choose_participants
    from fedvtc.reporting.tables import human_bytes

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
    if machine_bytes is not None and is_here(plan.config) and plan.memory_bytes > machine_bytes:
        has = human_bytes(machine_bytes)
        fix = "population.num_clients" if packing.num_actors <= 1 else "cluster.num_cpus"
        lines.append(f"Memory: {needed} do not fit, this machine has {has}. Set a smaller {fix}.")
    return lines


def _slots(plan: Plan) -> str:
    """Where there is room for how many actors."""
    if not plan.free:
        return "that is with room for all, for no cluster answers"
    if is_here(plan.config):
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
    loads = loads_of(dict(enumerate(plan.costs_K)), plan.hosted)
    ratio = max(loads) * len(loads) / sum(loads)
    guess = "images times operations of the backbone"
    return f"Work: on {device}; the busiest actor has {ratio:.2f} times the mean of all, counted as {guess}."


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")
