"""Means over seeds, as CSV, Markdown and tables."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.tables import human_bytes

METRICS = {label: HEADLINE_METRICS[label] for label in ("accuracy", "worst", "missing")}
"""What is shown of the final record, by the heading of its column."""


BYTES = "bytes/total"
"""Bytes that all clients together sent and received, over all rounds."""


NOTE = "mean +- sample standard deviation over seeds of the runs that have finished"


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed alone.

    Attributes:
        values: what they have in common, as texts, by key; texts of values that differ do too.
        num_trials: all of them.
        num_finished: those whose numbers are in the means.
        lacking: paths of those that have finished and lack records, as where the disk was full; none is in the means.
        num_stopped: those that were stopped early.
        numbers: the values of each metric, in the order of the trials; what a run does not have is left out.
        seconds: wall clock of the rounds of each.
    """

    values: Mapping[str, str]
    num_trials: int
    num_finished: int
    lacking: Sequence[Path]
    num_stopped: int
    numbers: Mapping[str, Sequence[float]]
    seconds: Sequence[float]


def as_csv(found: Sequence[Group]) -> str:
    """One row per group; numbers in full, an empty cell where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*METRICS.values(), BYTES]
    spreads = [f"{name}{end}" for name in columns for end in ("", "/std")]
    writer.writerow([*_keys(found), "trials", "finished", "stopped_early", *spreads])
    for group in found:
        cells: list[Any] = [group.num_trials, group.num_finished, group.num_stopped]
        for name in columns:
            cells += _mean_and_std(group.numbers[name])
        writer.writerow([*group.values.values(), *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def as_markdown(found: Sequence[Group], name: str) -> str:
    """The same as people read it."""
    headings = _headings(found)
    rows = [headings, ["---" for _ in headings], *(_row(group) for group in found)]
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([f"# {name}", "", f"{NOTE[0].upper()}{NOTE[1:]}.", "", *(f"| {line} |" for line in lines), ""])


def as_table(found: Sequence[Group]) -> Table:
    """The same for the terminal, with the wall clock of a run."""
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True, caption=NOTE)
    table.caption_justify = "left"
    for heading in [*_headings(found), "seconds"]:
        table.add_column(heading, justify="left" if heading in _keys(found) else "right")
    for group in found:
        seconds = f"{statistics.fmean(group.seconds):.0f}" if group.seconds else "-"
        table.add_row(*(Text(cell) for cell in [*_row(group), seconds]))
    return table


def _keys(found: Sequence[Group]) -> list[str]:
    return list(found[0].values) if found else []


def _headings(found: Sequence[Group]) -> list[str]:
    return [*_keys(found), "finished", *METRICS, "bytes"]


def _row(group: Group) -> list[str]:
    finished = f"{group.num_finished}/{group.num_trials}"
    if group.num_stopped:
        finished += f", {group.num_stopped} stopped"
    spreads = [_spread(group.numbers[name]) for name in METRICS.values()]
    size = _mean_and_std(group.numbers[BYTES])[0]
    return [*group.values.values(), finished, *spreads, "-" if size is None else human_bytes(size)]


def _spread(values: Sequence[float]) -> str:
    mean, std = _mean_and_std(values)
    return "-" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} +- {std:.4f}"


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and sample standard deviation (n - 1), which one value does not have."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )
