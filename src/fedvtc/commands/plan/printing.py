"""Tables, lines and the picture of a plan."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fedvtc.commands.free_memory import free_memory_bytes
from fedvtc.commands.plan.data import data_lines
from fedvtc.commands.plan.limits import disk_lines, memory_lines
from fedvtc.commands.plan.nodes import is_local
from fedvtc.commands.plan.plan import Plan
from fedvtc.errors import UserError, count_of
from fedvtc.learning.seeding import choose_participants
from fedvtc.reporting.partition_picture import partition_picture
from fedvtc.reporting.tables import class_table, human_bytes, human_count, keep_words
from fedvtc.runtime.balance import loads_of
from fedvtc.runtime.placement import slots

MAX_WIDTH = 1000
"""Columns of a console that is wide enough for every table."""


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the tables of a plan, then its placement, memory and disk space."""
    population = plan.population
    images = class_table(
        population.class_counts_KC, population.dataset.class_names, plan.backbones, max_width=console.width
    )
    for table in (images, _parameters_table(plan), _narrowed(_payload_table(plan), console)):
        console.print(table)
        console.print()
    lines = [
        *data_lines(population.report),
        *message_lines(plan),
        *placement_lines(plan),
        *memory_lines(plan, free_memory_bytes()),
        *disk_lines(plan),
        *(plan.privacy.lines() if plan.privacy else ()),
    ]
    # A terminal would break a long line inside of a word.
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=not console.is_terminal)


def save_picture(plan: Plan, path: Path) -> None:
    """Writes the partition as a PNG file, with any suffix.

    Raises:
        UserError: the file cannot be written.
    """
    population = plan.population
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partition_picture(population.class_counts_KC, path, population.dataset.class_names, plan.backbones)
    except OSError as error:
        fix = "Name another file with --picture."
        raise UserError(f"{path}: the picture cannot be written ({error.strerror}). {fix}") from None


def message_lines(plan: Plan) -> list[str]:
    """Returns a line on messages of unknown size."""
    if not plan.undefined_sizes:
        return []
    functions = " and ".join(plan.undefined_sizes)
    what = f"method.name={plan.config.method.name} does not define {functions}, so the bytes of messages are unknown"
    return [f"Bytes: {what}, and memory and disk space are without them. Define {functions}."]


def placement_lines(plan: Plan) -> list[str]:
    """Returns lines on actors, slots and work."""
    packing, placement = plan.packing, plan.config.placement
    clients = count_of(plan.config.population.num_clients, "client")
    device = "GPU" if plan.needs.num_gpus > 0 else "CPU"
    if placement.pool == "inline":
        return [f"Placement: {clients} in this process, one after another, on the {device}, without Ray."]
    most = max(map(len, plan.hosted))
    return [
        f"Placement: {clients} in {count_of(packing.num_actors, 'actor')} with {plan.needs} each, "
        f"at most {count_of(most, 'client')} per actor; {_slots(plan)}.",
        f"Work: the busiest actor does {_imbalance(plan):.2f} times the mean work per actor, on {device}s "
        "(estimated as images times operations of the backbone).",
    ]


def _slots(plan: Plan) -> str:
    """Slots on this machine or the cluster, and the waiting time if the slots are too few."""
    packing = plan.packing
    if not plan.free:
        return "no cluster answers, so a slot for every actor is assumed"
    if is_local(plan.config):
        found = f"this machine has {count_of(packing.num_slots, 'slot')}"
    else:
        num_nodes = Counter(slots(plan.needs, node) for node in plan.free)
        each = ", ".join(
            f"{num} on {f'each of {nodes} nodes' if nodes > 1 else '1 node'}"
            for num, nodes in sorted(num_nodes.items(), reverse=True)
        )
        found = f"the cluster has {count_of(packing.num_slots, 'free slot')} now: {each}"
    if packing.num_actors <= packing.num_slots:
        return found
    return f"{found}; the run waits up to {plan.config.placement.wait_timeout_s:g} s for free slots"


def _imbalance(plan: Plan) -> float:
    """Work of the busiest actor over the mean of all actors; 1.0 is even."""
    loads = loads_of(dict(enumerate(plan.costs_K)), plan.hosted)
    return max(loads) * len(loads) / sum(loads)


def _parameters_table(plan: Plan) -> Table:
    table = _table("Models, classifier head included", "backbone", "clients", "parameters", "weights")
    for name, client in plan.clients.items():
        num = client.parameters
        table.add_row(name, str(plan.backbones.count(name)), human_count(num), human_bytes(4 * num))
    return table


def _payload_table(plan: Plan) -> Table:
    """Bytes of a client in a round, after the last round, and in the whole run; in the last line of all clients."""
    run, num_clients = plan.config.run, plan.config.population.num_clients
    chosen = choose_participants(run.seed, round=1, num_clients=num_clients, participation=run.participation)
    clients, rounds = count_of(num_clients, "client"), count_of(run.rounds, "round")
    title = f"Bytes of a client, upper bound, {rounds}, {len(chosen)} of {clients} a round"
    # Headings of short words: the table fits on 80 columns.
    columns = [f"{way}, {part}" for way in ("up", "down") for part in ("a round", "at end", "in all")]
    table = _table(title, "kind", *columns)
    # The first round has no broadcast.
    num_messages = {"up": run.rounds, "down": run.rounds - 1}

    def add(name: str, sizes: Callable[[Mapping[str, int]], int], num_in_round: int = 1, num_at_end: int = 1) -> None:
        row = []
        for way, num in num_messages.items():
            in_round, at_end = (sizes(plan.run_bytes[part][way]) for part in ("round", "end"))
            in_round, at_end = num_in_round * in_round, num_at_end * at_end
            row += [in_round, at_end, num * in_round + at_end]
        table.add_row(name, *map(human_bytes, row))

    if plan.undefined_sizes:
        for name in ("total", "all clients"):
            table.add_row(name, *["unknown"] * len(columns))
        return table
    kinds = [kind for part in plan.run_bytes.values() for way in part.values() for kind in way]
    for kind in dict.fromkeys(kinds):
        add(kind, lambda found, kind=kind: found.get(kind, 0))  # type: ignore[misc]
    add("total", lambda found: sum(found.values()))
    add("all clients", lambda found: sum(found.values()), len(chosen), num_clients)
    return table


def _narrowed(table: Table, console: Console) -> Table:
    """Folds the headings of a table that is too wide for the console; rich alone would cut names and numbers."""
    keep_words(table)
    if Measurement.get(console, console.options.update(max_width=MAX_WIDTH), table).maximum > console.width:
        for column in table.columns:
            column.width = column.min_width
    return table


def _table(title: str, name: str, *columns: str) -> Table:
    """A table with one column of names and columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(name)
    for column in columns:
        table.add_column(column, justify="right")
    return table
