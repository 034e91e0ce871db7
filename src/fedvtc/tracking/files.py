"""The records of a run in its folder: metrics.jsonl and clients.csv.

Both are plain text that can be read without fedvtc, while the run goes on too.
"""

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fedvtc.metrics import CLIENT_METRICS
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.appending import AppendFile
from fedvtc.tracking.replacing import replaced

CLIENT_COLUMNS = ("round", "phase", "client", "backbone", "num_images", "num_classes", *CLIENT_METRICS)
"""The first columns of clients.csv."""
MAX_HEADER_BYTES = 2**20


class LineTracker(Tracker, ABC):
    """A file of the run folder that each record adds whole lines to.

    A resumed run first cuts the file back to the round after which it goes on. Lines that cannot be written raise an
    `OSError`, wait in memory, and are written with the next that can be.
    """

    file_name: str

    @property
    def num_waiting(self) -> int:
        """Lines that wait in memory."""
        return self._file.num_waiting

    def start(self, run: RunInfo) -> None:
        """Opens the file at its end."""
        self._path = run.folder / self.file_name
        cut = None if run.resumed_round is None else partial(self._cut, run.resumed_round)
        self._file = AppendFile(self._path, cut)
        self._file.open()

    def finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()

    @abstractmethod
    def _kept(self, lines: Iterator[bytes], last_round: int) -> Iterable[bytes]:
        """Those of the file's whole lines that stay when the run goes on after `last_round`."""

    def _cut(self, last_round: int) -> None:
        if not self._path.is_file():
            return
        with replaced(self._path) as beside, beside.open("wb") as new:
            new.writelines(self._kept(_whole_lines(self._path), last_round))


class JsonlTracker(LineTracker):
    """metrics.jsonl: one JSON object a line per record, on disk as soon as it is logged; what is not finite is null."""

    file_name = "metrics.jsonl"

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends the record; one write per line, so a reader never meets half of one."""
        self._file.append(json.dumps(plain(record), allow_nan=False) + "\n")

    def _kept(self, lines: Iterator[bytes], last_round: int) -> Iterator[bytes]:
        """The first record of each round, in ascending order."""
        reached = 0
        for line in lines:
            record = record_of(line)
            if record.get("phase") != "round":
                continue
            round = record.get("round")
            if isinstance(round, int) and reached < round <= last_round:
                reached = round
                yield line


class CsvTracker(LineTracker):
    """clients.csv: one row per client and evaluation.

    The columns are those of the file's header; a new file has `CLIENT_COLUMNS` and then whatever else the first rows
    hold. What a row lacks, or what is not finite, is an empty cell.
    """

    file_name = "clients.csv"

    def __init__(self) -> None:
        self._columns: list[str] = []

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends one row per client; `round` and `phase` are the record's."""
        rows = [plain({"round": record["round"], "phase": record["phase"], **client}) for client in clients]
        self._file.append(self._text(rows) if rows else "")

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        known = self._columns or self._header()
        self._columns = known or list(dict.fromkeys([*CLIENT_COLUMNS, *(key for row in rows for key in row)]))
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        if not known:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _header(self) -> list[str]:
        """The columns of the file, none where it has no header yet."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
        return cells_of(line) if line.endswith(b"\n") else []

    def _kept(self, lines: Iterator[bytes], last_round: int) -> Iterator[bytes]:
        """The header and whole rows of rounds."""
        columns: list[str] = []
        for line in islice(lines, 1):
            columns = cells_of(line)
            yield line
        for line in lines:
            cells = cells_of(line)
            row = dict(zip(columns, cells, strict=False))
            round = _round_of(row.get("round", ""))
            whole = len(cells) == len(columns) and row.get("phase") == "round"
            if whole and round is not None and round <= last_round:
                yield line


def count_recorded(folder: Path, num_clients: int) -> int:
    """The last round up to which the records of a run folder are all there: lines of rounds, and rows of evaluations.

    Args:
        folder: of the run.
        num_clients: rows of each evaluation.
    """
    rows: Counter[int] = Counter()
    for line in _whole_lines(folder / CsvTracker.file_name):
        cell, phase = [*cells_of(line)[:2], "", ""][:2]
        round = _round_of(cell)
        if phase == "round" and round is not None:
            rows[round] += 1
    num_done = 0
    for line in _whole_lines(folder / JsonlTracker.file_name):
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
    records = [json.loads(line) for line in _whole_lines(folder / JsonlTracker.file_name)]
    return [record for record in records if record["phase"] == "round" and record["round"] <= last_round]


def _whole_lines(path: Path) -> Iterator[bytes]:
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


def _round_of(cell: str) -> int | None:
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
