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

METRICS = {label: HEADLINE_METRICS[label] for label in ("accuracy", "worst", "held", "missing")}
METRICS |= {"F1": "test/f1/mean"}
"""Metrics of the final record, by the heading of their column."""
BYTES = {"up": "bytes/up", "down": "bytes/down"}
"""Bytes that all clients together sent and received, over all rounds, by the heading of their column."""
SECONDS = {"client s": "time/client", "seconds": "time/round"}
"""Measured times of a run, on the terminal only: of the clients' and the server's computing, and wall clock."""
TO_TARGET = {"rounds": "target/rounds", "MB": "target/bytes"}
"""Numbers up to the first evaluation that reaches the target, by the start of the heading of their column."""
TARGET_SECONDS = "target/seconds"
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
        target: mean accuracy that the numbers of `TO_TARGET` refer to; None for a sweep without a target.
    """

    values: Mapping[str, str]
    num_trials: int
    num_finished: int
    incomplete_runs: Sequence[Path]
    num_stopped: int
    numbers: Mapping[str, Sequence[float]]
    target: float | None = None


def as_csv(groups: Sequence[Group]) -> str:
    """Renders groups as CSV: one row per group, numbers with all digits, empty cells for missing numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*METRICS.values(), *BYTES.values(), *(TO_TARGET.values() if _target(groups) else ())]
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
    target = _target(groups)
    times = dict(SECONDS) | ({f"s to {target:g}": TARGET_SECONDS} if target else {})
    for heading in [*_headings(groups), *times]:
        table.add_column(heading, justify="left" if heading in _keys(groups) else "right")
    for group in groups:
        seconds = [_mean(group.numbers[name], ".0f") for name in times.values()]
        table.add_row(*(Text(cell) for cell in [*_row(group), *seconds]))
    return table


def _keys(groups: Sequence[Group]) -> list[str]:
    return list(groups[0].values) if groups else []


def _target(groups: Sequence[Group]) -> float | None:
    return groups[0].target if groups else None


def _headings(groups: Sequence[Group]) -> list[str]:
    target = _target(groups)
    to_target = [f"{start} to {target:g}" for start in TO_TARGET] if target else []
    return [*_keys(groups), "finished", *METRICS, *BYTES, *to_target]


def _row(group: Group) -> list[str]:
    finished = f"{group.num_finished}/{group.num_trials}"
    if group.num_stopped:
        finished += f", {group.num_stopped} stopped"
    spreads = [_spread(group.numbers[name]) for name in METRICS.values()]
    num_bytes = [_mean_and_std(group.numbers[name])[0] for name in BYTES.values()]
    cells = [*spreads, *("-" if mean is None else human_bytes(mean) for mean in num_bytes)]
    if group.target:
        reached = len(group.numbers[TO_TARGET["rounds"]])
        # Runs that never reach the target are not in the means.
        some = f" ({reached}/{group.num_finished})" if 0 < reached < group.num_finished else ""
        cells += [_mean(group.numbers[TO_TARGET["rounds"]], ".1f") + some]
        cells += [_mean([value / 1e6 for value in group.numbers[TO_TARGET["MB"]]], ".2f")]
    return [*group.values.values(), finished, *cells]


def _mean(values: Sequence[float], form: str) -> str:
    return f"{statistics.fmean(values):{form}}" if values else "-"


def _spread(values: Sequence[float]) -> str:
    mean, std = _mean_and_std(values)
    return "-" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} +- {std:.4f}"


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns mean and sample standard deviation (n - 1); None without enough values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )
