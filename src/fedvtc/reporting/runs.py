"""Lists runs: one line per run, with any settings and numbers as columns."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from fedvtc.config.problems import did_you_mean, nearest, show
from fedvtc.errors import UserError
from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.run_facts import DAMAGE, RunFacts, check_records, damage, read_run, repeat_command
from fedvtc.reporting.run_folders import find_runs
from fedvtc.reporting.run_values import values_of
from fedvtc.reporting.tables import human_bytes
from fedvtc.storage.records import plain
from fedvtc.storage.trust import resume_command

COLUMNS = ("run", "data", "partition", "clients", "method", "seed", "round", *HEADLINE_METRICS, "status")
FILE_COLUMNS = ("folder", *COLUMNS[:7], "rounds", *COLUMNS[7:], "reason", "created")
"""Columns of JSON and CSV."""
LEAST = ("missing", "held", "worst", "clients", "partition", "data")
"""Columns that a narrow terminal leaves out, one after the other."""
MAX_CELL = 40
"""Terminal columns of a cell; a longer text, such as a label, would push the numbers out of the table."""
RESUMABLE = ("failed", "interrupted", "killed")
"""Statuses of runs that have ended and not finished."""
LEGEND = (
    "accuracy: generalization accuracy, mean over clients; worst: the worst client; held: on the classes that a client",
    "has training images of; missing: on the other classes.",
)


@dataclass(frozen=True)
class Selection:
    """The runs and columns that a list shows.

    Attributes:
        where: permitted texts of values by name.
        sort: name of the value by which runs are sorted; None sorts by age.
        reverse: True reverses the order.
        columns: names of values; None shows the usual columns.
    """

    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: str | None = None
    reverse: bool = False
    columns: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class RunRow:
    """A run, and its values by the name of a column."""

    run: RunFacts
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Returns the text of a value for people; numbers are rounded."""
        value = self.values.get(column)
        if value is None:
            # A value that every run should have.
            return "?" if column in COLUMNS and column not in HEADLINE_METRICS else "-"
        if column == "round":
            return f"{value}/{'?' if self.run.num_rounds is None else self.run.num_rounds}"
        if column in HEADLINE_METRICS:
            return f"{value:.3f}"
        if column.startswith(("bytes/", "memory/")):
            return human_bytes(value)
        return f"{value:.4g}" if isinstance(value, float) and "/" in column else exact_text(value)


def exact_text(value: Any) -> str:
    """Returns a value as the config has it."""
    return value if isinstance(value, str) else show(value)


def read_runs(folders: Sequence[Path], selection: Selection) -> tuple[list[RunRow], list[str]]:
    """Reads the runs at or below some folders.

    Returns:
        The selected runs in order, and a line for each damaged or unreadable folder.

    Raises:
        UserError: a folder does not exist, or no run has a value of a name in the selection.
    """
    rows = []
    found, problems = find_runs(folders)
    for folder in found:
        try:
            run = read_run(folder)
            check_records(run)
            rows.append(RunRow(run, values_of(run)))
        except DAMAGE as error:
            problems.append(f"{folder}: not shown, damaged ({damage(error)}).")
    _check_known(rows, selection)
    rows = [
        row for row in rows if all(exact_text(row.values.get(name)) in texts for name, texts in selection.where.items())
    ]
    rows.sort(key=lambda row: (row.run.created, row.run.folder))
    if selection.sort is not None:
        rows.sort(key=lambda row: _order(row.values.get(str(selection.sort))))
    return rows[::-1] if selection.reverse else rows, problems


def runs_table(
    folders: Sequence[Path], width: int, selection: Selection | None = None
) -> tuple[Table | None, list[str]]:
    """Returns a table of runs, and lines to print below the table.

    Args:
        folders: run folders, or folders that hold run folders one or two levels deep.
        width: columns of the terminal. If the table is wider, numbers stand for the names of the runs, a column with
            the same value for all runs becomes a line, and the columns `LEAST` are left out.
        selection: the runs and columns; None shows all runs.

    Returns:
        The table, or None if there is no run. The lines name every run folder, the reason of each run that ended
        early, every damaged or unreadable folder, and the next command to try.

    Raises:
        UserError: a folder does not exist, or no run has a value of a name in the selection.
    """
    selection = selection or Selection()
    rows, problems = read_runs(folders, selection)
    if not rows:
        named = ", ".join(str(folder) for folder in folders)
        if selection.where:
            return None, [*problems, f"No run in {named} has these values. Without --where, the list shows all runs."]
        return None, [*problems, f"No runs in {named}. Start a run: fedvtc run conf/base.yaml"]
    names = [str(row.run.folder) for row in rows]
    columns = list(COLUMNS if selection.columns is None else dict.fromkeys(["run", *selection.columns]))
    numbers: list[str] | None = None
    same: list[str] = []
    if _width(rows, columns, numbers) > width:
        numbers = [str(number) for number in range(1, len(rows) + 1)]
        names = [f"{number:>{len(numbers[-1])}}  {name}" for number, name in zip(numbers, names, strict=True)]
        if selection.columns is None:
            columns, same = _varied(rows)
            left_out = []
            for name in LEAST:
                if name in columns and _width(rows, columns, numbers) > width:
                    columns.remove(name)
                    left_out.append(name)
            same += [f"not shown at {width} columns: {', '.join(left_out)}"] if left_out else []
    legend = LEGEND if {"worst", "held", "missing"} & set(columns) else ()
    ends = [(row.run.folder, row.run.status) for row in rows]
    reasons = [f"{folder}: {status.name} ({status.reason})." for folder, status in ends if status.reason]
    newest = max(rows, key=lambda row: (row.run.created, row.run.folder))
    lines = [*same, *legend, "", *names, *problems, *reasons, "", f"Next: {next_command(newest.run)}"]
    return _table(rows, columns, numbers), lines


def runs_as_json(rows: Sequence[RunRow], columns: Sequence[str] | None) -> str:
    """Returns runs as a JSON list of objects, with all digits."""
    names = columns or FILE_COLUMNS
    return json.dumps([plain({name: row.values.get(name) for name in names}) for row in rows], indent=2) + "\n"


def runs_as_csv(rows: Sequence[RunRow], columns: Sequence[str] | None) -> str:
    """Returns runs as CSV, with all digits; a missing value is an empty cell."""
    names = columns or FILE_COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row.values.get(name) for name in names]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _check_known(rows: Sequence[RunRow], selection: Selection) -> None:
    known = dict.fromkeys(name for row in rows for name in row.values)
    options = {"--where": list(selection.where), "--sort": [selection.sort] if selection.sort else []}
    options["--columns"] = list(selection.columns or ())
    for option, names in options.items():
        for name in names:
            if rows and name not in known:
                # A list of every config key would be longer than a screen.
                fix = did_you_mean(name, known if nearest(name, known) else COLUMNS)
                raise UserError(f"{option} {name}: no run has this value. {fix}")


def _order(value: Any) -> tuple[int, Any]:
    """Returns a key that sorts numbers, then texts, then missing values."""
    if value is None:
        return 2, 0
    return (0, value) if isinstance(value, int | float) else (1, exact_text(value))


def _varied(rows: Sequence[RunRow]) -> tuple[list[str], list[str]]:
    """Returns the results and the columns that tell the runs apart, and a line with the values of other columns."""
    settings = COLUMNS[1 : COLUMNS.index("round")]
    values = {name: {row.text(name) for row in rows} for name in settings}
    same = [f"{name} {value}" for name in settings for value in values[name] if len(values[name]) == 1]
    columns = [name for name in COLUMNS if len(values.get(name, ())) != 1]
    return columns, [f"all runs: {', '.join(same)}"] if same else []


def next_command(run: RunFacts) -> str:
    """Returns the command to try after a run: resume the run if it ended early, else run another seed."""
    if run.status.name in RESUMABLE:
        return resume_command(run.folder)
    seed = 0 if run.seed is None else run.seed + 1
    config = shlex.quote(str(run.folder / "config.yaml"))
    return f"fedvtc plan {config}, or {repeat_command(run)} run.seed={seed}"


def _cells(rows: Sequence[RunRow], column: str, numbers: Sequence[str] | None) -> list[str]:
    if column == "run":
        return list(numbers) if numbers else [row.text(column) for row in rows]
    return [_clipped(row.text(column)) for row in rows]


def _clipped(text: str) -> str:
    return text if cell_len(text) <= MAX_CELL else f"{set_cell_size(text, MAX_CELL - 1)}\N{HORIZONTAL ELLIPSIS}"


def _table(rows: Sequence[RunRow], columns: Sequence[str], numbers: Sequence[str] | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for column in columns:
        is_left = any(isinstance(row.values.get(column), str) for row in rows) and not (column == "run" and numbers)
        # Each run keeps one line; rich cuts a column that is too wide.
        table.add_column(column, no_wrap=True, overflow="ellipsis", justify="left" if is_left else "right")
    for cells in zip(*(_cells(rows, column, numbers) for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _width(rows: Sequence[RunRow], columns: Sequence[str], numbers: Sequence[str] | None) -> int:
    """Returns the terminal columns of a table whose cells are not cut."""
    widths = (max(map(cell_len, [name, *_cells(rows, name, numbers)])) for name in columns)
    return sum(widths) + len(columns) - 1
