"""Reads metrics.jsonl and clients.csv by one rule for damage.

A line counts once its line end is on disk: a last line without line end is torn, and no reader returns that line. A
whole line without a record, or without a row of all columns, is damaged: readers return the line's number without
values. The caller decides about damage: `list` names the run, `doctor` reports a fault, a sweep leaves the run out of
its means, and a resume cuts the lines off.
"""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedvtc.learning.metrics import EVALUATED_CLIENTS

METRICS_FILE = "metrics.jsonl"
"""One JSON object a line, one line a record."""
CLIENTS_FILE = "clients.csv"
"""One row per client and evaluation, below a header."""
PHASES = ("round", "final")
MAX_HEADER_BYTES = 2**20
"""Longest header of clients.csv; a damaged file may hold no line end."""
KEY_COLUMNS = ("round", "phase", "client")
"""Columns that every clients.csv has."""


class Line(NamedTuple):
    """One whole line of a file of records.

    Attributes:
        number: position in the file, from 1.
        content: bytes with line end.
        values: the record, or the row by column, with an int as `round`; None if the line is damaged.
    """

    number: int
    content: bytes
    values: dict[str, Any] | None


@dataclass(frozen=True)
class Metrics:
    """Content of a metrics.jsonl.

    Attributes:
        records: the undamaged records, in file order.
        damaged_lines: numbers of the whole lines without a record, from 1.
    """

    records: list[dict[str, Any]]
    damaged_lines: list[int]


def read_metrics(folder: Path) -> Metrics:
    """Reads metrics.jsonl of a run folder; a missing file has no records.

    Raises:
        OSError: if the file cannot be read.
    """
    lines = list(metrics_lines(folder))
    return Metrics(
        [line.values for line in lines if line.values is not None],
        [line.number for line in lines if line.values is None],
    )


def metrics_lines(folder: Path) -> Iterator[Line]:
    """Yields the whole lines of metrics.jsonl in a run folder; nothing if the file is missing."""
    for number, content in enumerate(_whole_lines(folder / METRICS_FILE), start=1):
        yield Line(number, content, _record(content))


def client_lines(folder: Path) -> Iterator[Line]:
    """Yields the whole lines of clients.csv below the header; nothing if the file is missing."""
    columns = client_columns(folder)
    for number, content in enumerate(_whole_lines(folder / CLIENTS_FILE), start=1):
        if number > 1:
            yield Line(number, content, _row(content, columns))


def client_columns(folder: Path) -> list[str]:
    """Returns the columns in the header of clients.csv; none if the header is missing, torn or damaged."""
    header = b""
    with suppress(FileNotFoundError), (folder / CLIENTS_FILE).open("rb") as file:
        header = file.readline(MAX_HEADER_BYTES)
    columns = _cells(header) if header.endswith(b"\n") else []
    return columns if set(KEY_COLUMNS) <= set(columns) else []


def is_torn(file: Path) -> bool:
    """Returns True if the last line of a file has no line end: a process is writing that line, or died meanwhile."""
    with file.open("rb") as opened:
        if opened.seek(0, os.SEEK_END) == 0:
            return False
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) != b"\n"


def count_recorded(folder: Path, num_clients: int) -> int:
    """Counts the rounds, from the first on, whose record and rows of evaluation are all undamaged.

    Args:
        folder: the run folder.
        num_clients: expected rows of each evaluation whose record has no number of evaluated clients.
    """
    rows = (line.values for line in client_lines(folder) if line.values is not None)
    num_rows = Counter(row["round"] for row in rows if row["phase"] == "round")
    num_done = 0
    for record in read_metrics(folder).records:
        is_next = (record["round"], record["phase"]) == (num_done + 1, "round")
        expected = record.get(EVALUATED_CLIENTS, num_clients)
        if is_next and ("test/accuracy/mean" not in record or num_rows[num_done + 1] == expected):
            num_done += 1
    return num_done


def records_up_to(folder: Path, last_round: int) -> list[dict[str, Any]]:
    """Returns the records of rounds in a run folder up to `last_round`, in file order."""
    records = read_metrics(folder).records
    return [record for record in records if record["phase"] == "round" and record["round"] <= last_round]


def clients_of(folder: Path, rounds: Iterable[int]) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of the evaluation of each round in clients.csv with numbers as numbers; none without one.

    Reads the file once, so the rounds must ascend.
    """
    rows = (line.values for line in client_lines(folder) if line.values is not None)
    evaluations = groupby((row for row in rows if row["phase"] == "round"), key=itemgetter("round"))
    reached: float = -1
    evaluated: Iterator[dict[str, Any]] = iter(())
    for round in rounds:
        while reached < round:
            reached, evaluated = next(evaluations, (math.inf, evaluated))
        yield [_with_numbers(row) for row in evaluated] if reached == round else []


def _with_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_number(value) if isinstance(value, str) else value for name, value in row.items()}


def _as_number(text: str) -> int | float | str | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


def plain(value: Any) -> Any:
    """Converts a value for JSON: NumPy values become Python values, numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole_lines(file: Path) -> Iterator[bytes]:
    with suppress(FileNotFoundError), file.open("rb") as opened:
        # A torn row may look whole: its last cell may hold 0.5 of 0.512.
        yield from (line for line in opened if line.endswith(b"\n"))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or type(record.get("round")) is not int or record.get("phase") not in PHASES:
        return None
    return record


def _row(line: bytes, columns: list[str]) -> dict[str, Any] | None:
    cells = _cells(line)
    row: dict[str, Any] = dict(zip(columns, cells, strict=False))
    if not columns or len(cells) != len(columns) or row["phase"] not in PHASES:
        return None
    try:
        return row | {"round": int(row["round"])}
    except ValueError:
        return None


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()]), [])
    except (csv.Error, ValueError):
        return []
