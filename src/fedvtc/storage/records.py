"""Reads metrics.jsonl and clients.csv."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

METRICS_FILE = "metrics.jsonl"
"""One JSON object a line, one line a record."""
CLIENTS_FILE = "clients.csv"
"""One row a client and evaluation."""


def read_records(file: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; the last line may be one that is just being written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(dict(mapping(json.loads(line), f"{file.name}:{number}")))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise ValueError(f"{file.name}:{number}: not a JSON object") from error
    return records


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """Returns a value that is a mapping.

    Raises:
        ValueError: the value is something else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected keys with values")
    return value


def count_recorded(folder: Path, num_clients: int) -> int:
    """The last round up to which the records of a run folder are all there: lines of rounds, and rows of evaluations.

    Args:
        folder: of the run.
        num_clients: rows of each evaluation.
    """
    rows: Counter[int] = Counter()
    for line in whole_lines(folder / CLIENTS_FILE):
        cell, phase = [*cells_of(line)[:2], "", ""][:2]
        round = round_of(cell)
        if phase == "round" and round is not None:
            rows[round] += 1
    num_done = 0
    for line in whole_lines(folder / METRICS_FILE):
        record = record_of(line)
        is_next = (record.get("round"), record.get("phase")) == (num_done + 1, "round")
        if is_next and ("test/accuracy/mean" not in record or rows[num_done + 1] == num_clients):
            num_done += 1
    return num_done


def records_up_to(folder: Path, last_round: int) -> list[dict[str, Any]]:
    """The records of rounds in a run folder, up to one of them, in order.

    Args:
        folder: of the run; its metrics.jsonl is cut back, so that it holds each round once.
        last_round: the last one that is wanted.
    """
    records = [json.loads(line) for line in whole_lines(folder / METRICS_FILE)]
    return [record for record in records if record["phase"] == "round" and record["round"] <= last_round]


def whole_lines(path: Path) -> Iterator[bytes]:
    """A line without its end may be one that was torn, even where it can be read."""
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def cells_of(line: bytes) -> list[str]:
    """The cells of a line of clients.csv, none where it is damaged; bytes that are no text are replaced."""
    try:
        return next(csv.reader([line.decode(errors="replace")]), [])
    except csv.Error:
        return []


def round_of(cell: str) -> int | None:
    """The round in a cell of clients.csv; None where the cell is damaged."""
    # No run has a billion rounds, and Python refuses to read a number of some thousand digits.
    return int(cell) if cell.isdecimal() and len(cell) < 10 else None


def record_of(line: bytes) -> dict[str, Any]:
    """The record on a line of metrics.jsonl, an empty one where the line is damaged."""
    try:
        record = json.loads(line)
    # Brackets in brackets, a thousand deep, are JSON too.
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def plain(value: Any) -> Any:
    """Python values for NumPy ones, None for what JSON has no number for; through mappings and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
