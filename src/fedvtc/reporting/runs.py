"""Rows of runs, read from their folders."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from fedvtc.errors import UserError, first_line
from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.storage.records import mapping, read_records

RUN_FILES = ("run.json", "metrics.jsonl")
"""A folder with one of these is a run folder; a config.yaml may lie in any folder, above runs too."""


@dataclass(frozen=True)
class RunRow:
    """One run as its row shows it."""

    folder: Path
    created: str
    cells: tuple[str, ...]


def runs_table(folders: Sequence[Path]) -> tuple[Table | None, list[str]]:
    """A table of the runs in some folders, and lines to print below it.

    Args:
        folders: run folders, or folders that hold them, one or two levels deep.

    Returns:
        The table, or None when there is no run; and one line per run folder, per damaged one and per folder that cannot
        be read, then what to try next.

    Raises:
        UserError: if one of the folders does not exist.
    """
    rows = []
    runs, damaged = find_runs(folders)
    for folder in runs:
        try:
            rows.append(_read_run(folder))
        # Brackets in brackets, a thousand deep, are JSON and YAML too.
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            damaged.append(f"{folder}: not shown, damaged ({first_line(error)}).")
    if not rows:
        places = ", ".join(str(folder) for folder in folders)
        return None, [*damaged, f"No runs in {places}. Start one: fedvtc run conf/base.yaml"]
    rows.sort(key=lambda row: (row.created, row.folder))
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("run", overflow="fold", ratio=1)
    for name in ("data", "partition", "clients", "method", "seed", "round", *HEADLINE_METRICS, "status"):
        table.add_column(name, justify="left" if name in ("data", "partition", "method", "status") else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.cells))
    newest = rows[-1].folder / "config.yaml"
    lines = [
        "accuracy: generalization accuracy, mean over clients; worst: the worst client; held, missing: on the classes",
        "that a client has training images of, and on the others.",
        "",
        *(str(row.folder) for row in rows),
        *damaged,
        "",
        f"Next: fedvtc plan {newest}, or fedvtc run {newest} run.name=null run.seed=1",
    ]
    return table, lines


def find_runs(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The run folders at or below some folders, each once, and a line per folder that cannot be read.

    Raises:
        UserError: if a folder does not exist.
    """
    found: dict[Path, Path] = {}
    unread: list[str] = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such folder. Give a run folder, or a folder that holds some.")
        for run in _runs_below(folder, 2, unread):
            found.setdefault(run.resolve(), run)
    return list(found.values()), list(dict.fromkeys(unread))


def _runs_below(folder: Path, levels: int, unread: list[str]) -> Iterator[Path]:
    try:
        is_run = any((folder / name).is_file() for name in RUN_FILES)
        below = sorted(folder.iterdir()) if levels and not is_run and folder.is_dir() else []
    except OSError as error:
        unread.append(f"{folder}: not shown ({error.strerror}).")
        return
    if is_run:
        yield folder
    for inner in below:
        # Where a run is being made, or its process was killed as it made it, there is one that begins with a dot.
        if not inner.name.startswith("."):
            yield from _runs_below(inner, levels - 1, unread)


def _read_run(folder: Path) -> RunRow:
    run = mapping(json.loads((folder / "run.json").read_text(encoding="utf-8")), "run.json")
    config = mapping(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")), "config.yaml")
    records = read_records(folder / "metrics.jsonl")
    nothing: dict[str, Any] = {}
    measured = next((record for record in reversed(records) if HEADLINE_METRICS["accuracy"] in record), nothing)
    last_round = max((record["round"] for record in records if isinstance(record.get("round"), int)), default=0)
    partition, method = _section(config, "partition"), _section(config, "method")
    kind = str(partition.get("kind", "?"))
    if kind in ("dirichlet", "quantity"):
        kind += f" {partition.get('alpha', '?')}"
    elif kind == "shards":
        kind += f" {partition.get('classes_per_client', '?')}"
    cells = (
        str(run.get("name") or folder.name),
        str(_section(config, "data").get("name", "?")),
        kind,
        str(_section(config, "population").get("num_clients", "?")),
        str(method.get("label") or method.get("name", "?")),
        str(_section(config, "run").get("seed", "?")),
        f"{last_round}/{_section(config, 'run').get('rounds', '?')}",
        *(_number(measured.get(key)) for key in HEADLINE_METRICS.values()),
        str(run.get("status", "?")),
    )
    return RunRow(folder, str(run.get("created", "")), cells)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return mapping(config.get(name, {}), f"config.yaml: {name}")


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
