"""Costs of whole runs by phase and kind: seconds, CPU seconds, operations, bytes."""

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import altair as alt

from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, bars
from fedvtc.reporting.charts.style import PART_COLOURS
from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.reporting.run_numbers import COMPUTING, CPU, FLOPS, WALL_CLOCK


class Stack(NamedTuple):
    """A figure with a bar per group, stacked from parts: sums over a whole run.

    Attributes:
        name: name of the files.
        title: the heading.
        note: meaning of the parts.
        prefix: start of the numbers that are parts.
        left_out: numbers that hold those of other parts.
        unit: unit of the bar.
        scale: the number is divided by this one.
    """

    name: str
    title: str
    note: str
    prefix: str
    left_out: Sequence[str]
    unit: str
    scale: float = 1.0

    @property
    def kind(self) -> str:
        """Returns "bytes" for kinds of payload, else "phase"."""
        return "bytes" if self.prefix.startswith("bytes/") else "phase"


BYTES_NOTE = "Megabytes of all clients over the whole run by kind of payload, mean over seeds."
STACKS = (
    Stack(
        "time",
        "Seconds by phase",
        "Sum over the whole run, mean over seeds. Seconds of clients are summed over participants, so they exceed the "
        "wall clock if clients work in parallel; evaluate is wall clock.",
        "time/",
        (COMPUTING, WALL_CLOCK),
        "seconds",
    ),
    Stack(
        "cpu",
        "CPU seconds by phase",
        "Sum over clients and the whole run, mean over seeds; phases of the server begin with server.",
        "cpu/",
        (CPU, "cpu/client", "cpu/server"),
        "CPU seconds",
    ),
    Stack(
        "flops",
        "Operations by phase",
        "Floating-point operations of matrix products, convolutions and attention: sum over clients and the whole run, "
        "mean over seeds. Evaluations do not count.",
        "flops/",
        (FLOPS,),
        "10\u00b9\u00b2 operations",
        1e12,
    ),
    Stack("bytes-up", "Bytes sent by clients", BYTES_NOTE, "bytes/up/", (), "MB", 1e6),
    Stack("bytes-down", "Bytes received by clients", BYTES_NOTE, "bytes/down/", (), "MB", 1e6),
)


def phases(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figures of costs by phase and kind; those without numbers are left out."""
    found = {stack: list(_parts(runs, stack)) for stack in STACKS}
    for stack, rows in found.items():
        # A phase or a kind of payload has one colour in all figures of its unit.
        parts = list(dict.fromkeys(row["part"] for other in found for row in found[other] if other.kind == stack.kind))
        if rows:
            yield Figure(
                name=stack.name,
                title=stack.title,
                note=stack.note,
                section="Costs",
                rows=rows,
                charts={(): _stacked(groups, rows, parts, stack.unit)},
            )


def _parts(runs: Sequence[RunResult], stack: Stack) -> Iterator[Row]:
    """Yields a row per group and part: mean over the runs that have such numbers."""
    for group, members in groups_of(runs).items():
        parts = [
            {name: value for name, value in run.numbers.items() if name.startswith(stack.prefix)} for run in members
        ]
        having = [own for own in parts if own]
        for name in dict.fromkeys(name for own in having for name in own):
            if name not in stack.left_out:
                value = statistics.fmean(own.get(name, 0.0) for own in having) / stack.scale
                yield {"group": group, "part": name.removeprefix(stack.prefix), "value": value}


def _stacked(groups: Groups, rows: Sequence[Row], parts: Sequence[str], unit: str) -> Chart:
    own = {row["part"] for row in rows}
    colours = {part: PART_COLOURS[place % len(PART_COLOURS)] for place, part in enumerate(parts) if part in own}
    legend = alt.Legend() if len(colours) > 1 else None
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("part:N", sort=list(colours), scale=scale, legend=legend)
    chart: Chart = bars(groups, unit).encode(color=colour)
    return chart
