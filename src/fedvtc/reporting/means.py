"""Shows means over seeds as CSV, Markdown and a table for the terminal."""

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
"""Metrics of the final record, by the heading of their column."""
BYTES = "bytes/total"
"""Bytes that all clients together sent and received, over all rounds."""
NOTE = "mean +- sample standard deviation over seeds of the runs that have finished"


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed only, and the numbers of their finished runs.

    Attributes:
        values: the config values that set this group apart, as texts by key.
        num_trials: trials of the group.
        num_finished: finished runs whose numbers are in the means.
        incomplete_runs: folders of finished runs with missing or damaged records; their numbers are not in the means.
        num_stopped: trials that were stopped early.
        numbers: values of each metric in the order of the trials, without runs that lack the metric.
        seconds: wall-clock seconds of all rounds of each run.
    """

    values: Mapping[str, str]
    num_trials: int
    num_finished: int
    incomplete_runs: Sequence[Path]
    num_stopped: int
    numbers: Mapping[str, Sequence[float]]
    seconds: Sequence[float]


def as_csv(groups: Sequence[Group]) -> str:
    """Renders groups as CSV: one row per group, numbers with all digits, empty cells for missing numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*METRICS.values(), BYTES]
    spreads = [f"{name}{end}" for name in columns for end in ("", "/std")]
    writer.writerow([*_keys(groups), "trials", "finished", "stopped_early", *spreads])
    for group in groups:
        cells: list[Any] = [group.num_trials, group.num_finished, group.num_stopped]
        for name in columns:
            cells += _mean_and_std(group.numbers[name])
        writer.writerow([*group.values.values(), *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def as_markdown(groups: Sequence[Group], name: str) -> str:
    """Renders groups as a Markdown table under a heading.

    Args:
        groups: rows of the table.
        name: the heading.
    """
    headings = _headings(groups)
    rows = [headings, ["---" for _ in headings], *(_row(group) for group in groups)]
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([f"# {name}", "", f"{NOTE[0].upper()}{NOTE[1:]}.", "", *(f"| {line} |" for line in lines), ""])


def as_table(groups: Sequence[Group]) -> Table:
    """Renders groups as a table for the terminal, with the mean wall-clock seconds of a run."""
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True, caption=NOTE)
    table.caption_justify = "left"
    for heading in [*_headings(groups), "seconds"]:
        table.add_column(heading, justify="left" if heading in _keys(groups) else "right")
    for group in groups:
        seconds = f"{statistics.fmean(group.seconds):.0f}" if group.seconds else "-"
        table.add_row(*(Text(cell) for cell in [*_row(group), seconds]))
    return table


def _keys(groups: Sequence[Group]) -> list[str]:
    return list(groups[0].values) if groups else []


def _headings(groups: Sequence[Group]) -> list[str]:
    return [*_keys(groups), "finished", *METRICS, "bytes"]


def _row(group: Group) -> list[str]:
    finished = f"{group.num_finished}/{group.num_trials}"
    if group.num_stopped:
        finished += f", {group.num_stopped} stopped"
    spreads = [_spread(group.numbers[name]) for name in METRICS.values()]
    num_bytes = _mean_and_std(group.numbers[BYTES])[0]
    return [*group.values.values(), finished, *spreads, "-" if num_bytes is None else human_bytes(num_bytes)]


def _spread(values: Sequence[float]) -> str:
    mean, std = _mean_and_std(values)
    return "-" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} +- {std:.4f}"


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns mean and sample standard deviation (n - 1); None without enough values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )
