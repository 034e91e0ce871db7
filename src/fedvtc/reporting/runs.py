"""Finds run folders and shows one row per run."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fedvtc.errors import UserError, first_line
from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.storage.records import METRICS_FILE, read_metrics
from fedvtc.storage.run_status import RunStatus, true_status

RUN_FILES = ("run.json", METRICS_FILE)
"""A folder with one of these files is a run folder. A config.yaml proves nothing: users keep config files anywhere."""
MAX_LEVELS = 2
"""Number of levels below a given folder that are searched for run folders."""

COLUMNS = ("run", "data", "partition", "clients", "method", "seed", "round", *HEADLINE_METRICS, "status")
LEFT_COLUMNS = ("run", "data", "partition", "method", "status")
RESUMABLE = ("failed", "interrupted", "killed")
"""Statuses of runs that have ended and not finished."""
PARTITION_PARAMETERS = {
    "dirichlet": "alpha",
    "client_dirichlet": "alpha",
    "quantity": "alpha",
    "shards": "classes_per_client",
}
"""The config key that a row shows beside the kind of partition."""
LEGEND = (
    "accuracy: generalization accuracy, mean over clients; worst: the worst client; held: on the classes that a client",
    "has training images of; missing: on the other classes.",
)


@dataclass(frozen=True)
class RunRow:
    """One row of the table of runs.

    Attributes:
        folder: the run folder.
        created: start of the run, ISO 8601; empty if unknown.
        cells: texts of the columns.
        seed: `run.seed`; None if unknown.
        status: the true status; a killed run does not count as running.
    """

    folder: Path
    created: str
    cells: tuple[str, ...]
    seed: int | None
    status: RunStatus


def runs_table(folders: Sequence[Path], width: int) -> tuple[Table | None, list[str]]:
    """Returns a table of runs, and lines to print below the table.

    Args:
        folders: run folders, or folders that hold run folders one or two levels deep.
        width: columns of the terminal. If the table is wider, numbers stand for the names of the runs, and a column
            with the same value for all runs becomes a line.

    Returns:
        The table, or None if there is no run. The lines name every run folder, the reason of each run that ended
        early, every damaged or unreadable folder, and the next command to try.

    Raises:
        UserError: if one of the folders does not exist.
    """
    rows = []
    runs, problems = find_runs(folders)
    for folder in runs:
        try:
            rows.append(_read_run(folder))
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{folder}: not shown, damaged ({_reason(error)}).")
    if not rows:
        named = ", ".join(str(folder) for folder in folders)
        return None, [*problems, f"No runs in {named}. Start a run: fedvtc run conf/base.yaml"]
    rows.sort(key=lambda row: (row.created, row.folder))
    names, table = [str(row.folder) for row in rows], _table(rows, COLUMNS)
    same: list[str] = []
    if _width(rows, COLUMNS) > width:
        numbers = [str(number) for number in range(1, len(rows) + 1)]
        rows = [replace(row, cells=(number, *row.cells[1:])) for number, row in zip(numbers, rows, strict=True)]
        names = [f"{number:>{len(numbers[-1])}}  {name}" for number, name in zip(numbers, names, strict=True)]
        columns, same = _varied(rows)
        table = _table(rows, columns)
    lines = [*same, *LEGEND, "", *names, *problems, *_reasons(rows), "", f"Next: {_next_command(rows[-1])}"]
    return table, lines


def _varied(rows: Sequence[RunRow]) -> tuple[list[str], list[str]]:
    """Returns the results and the columns that tell the runs apart, and a line with the values of other columns."""
    settings = COLUMNS[1 : COLUMNS.index("round")]
    values = {name: {_cell(row, name) for row in rows} for name in settings}
    same = [f"{name} {value}" for name in settings for value in values[name] if len(values[name]) == 1]
    columns = [name for name in COLUMNS if len(values.get(name, ())) != 1]
    return columns, [f"all runs: {', '.join(same)}"] if same else []


def _reasons(rows: Sequence[RunRow]) -> list[str]:
    return [f"{row.folder}: {row.status.name} ({row.status.reason})." for row in rows if row.status.reason]


def _next_command(row: RunRow) -> str:
    """Returns the command to try after the newest run: resume the run if it ended early, else run another seed."""
    config = shlex.quote(str(row.folder / "config.yaml"))
    if row.status.name in RESUMABLE:
        return f"fedvtc resume {shlex.quote(str(row.folder))}"
    seed = 0 if row.seed is None else row.seed + 1
    return f"fedvtc plan {config}, or fedvtc run {config} run.name=null run.seed={seed}"


def find_runs(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Finds run folders at or below some folders.

    Returns:
        Every run folder once, and one line per folder that cannot be read.

    Raises:
        UserError: if a folder does not exist.
    """
    found: dict[Path, Path] = {}
    unreadable: list[str] = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such folder. Name a run folder, or a folder that holds run folders.")
        for run in _runs_below(folder, MAX_LEVELS, unreadable):
            found.setdefault(run.resolve(), run)
    return list(found.values()), list(dict.fromkeys(unreadable))


def _runs_below(folder: Path, num_levels: int, unreadable: list[str]) -> Iterator[Path]:
    try:
        is_run = any((folder / name).is_file() for name in RUN_FILES)
        below = sorted(folder.iterdir()) if num_levels and not is_run and folder.is_dir() else []
    except OSError as error:
        unreadable.append(f"{folder}: not shown ({error.strerror}).")
        return
    if is_run:
        yield folder
    for inner in below:
        # The name of a new run folder starts with a dot until the folder is complete.
        if not inner.name.startswith("."):
            yield from _runs_below(inner, num_levels - 1, unreadable)


def _table(rows: Sequence[RunRow], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in columns:
        table.add_column(name, overflow="fold", justify="left" if name in LEFT_COLUMNS else "right")
    for row in rows:
        table.add_row(*(Text(_cell(row, name)) for name in columns))
    return table


def _cell(row: RunRow, column: str) -> str:
    return row.cells[COLUMNS.index(column)]


def _width(rows: Sequence[RunRow], columns: Sequence[str]) -> int:
    """Returns the terminal columns of a table whose cells do not wrap."""
    widths = (max(cell_len(text) for text in (name, *(_cell(row, name) for row in rows))) for name in columns)
    return sum(widths) + len(columns) - 1


def _read_run(folder: Path) -> RunRow:
    run = _mapping(json.loads((folder / "run.json").read_text(encoding="utf-8")), "run.json")
    config = _mapping(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")), "config.yaml")
    metrics = read_metrics(folder)
    if metrics.damaged_lines:
        raise ValueError(f"{METRICS_FILE}:{metrics.damaged_lines[0]}: not a record")
    nothing: dict[str, Any] = {}
    accuracy = HEADLINE_METRICS["accuracy"]
    measured = next((record for record in reversed(metrics.records) if accuracy in record), nothing)
    last_round = max((record["round"] for record in metrics.records), default=0)
    method, seed, status = _section(config, "method"), _section(config, "run").get("seed"), _status(folder, run)
    cells = (
        str(run.get("name") or folder.name),
        str(_section(config, "data").get("name", "?")),
        _partition(_section(config, "partition")),
        str(_section(config, "population").get("num_clients", "?")),
        str(method.get("label") or method.get("name", "?")),
        "?" if seed is None else str(seed),
        f"{last_round}/{_section(config, 'run').get('rounds', '?')}",
        *(_number(measured.get(key)) for key in HEADLINE_METRICS.values()),
        status.name,
    )
    return RunRow(folder, str(run.get("created", "")), cells, seed if isinstance(seed, int) else None, status)


def _status(folder: Path, run: Mapping[str, Any]) -> RunStatus:
    try:
        return true_status(folder, run)
    except OSError:
        # A file system without locks, or a lock that this user may not read: run.json alone decides.
        return RunStatus(str(run.get("status", "?")))


def _partition(section: Mapping[str, Any]) -> str:
    kind = str(section.get("kind", "?"))
    parameter = PARTITION_PARAMETERS.get(kind)
    return f"{kind} {section.get(parameter, '?')}" if parameter else kind


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(config.get(name, {}), f"config.yaml: {name}")


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected keys with values")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return first_line(error)


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
