"""Writes the records of a run into its folder: metrics.jsonl and clients.csv, plain text that needs no fedvtc."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fedvtc.learning.metrics import CLIENT_METRICS
from fedvtc.storage.append import AppendFile
from fedvtc.storage.atomic import replaced
from fedvtc.storage.records import (
    CLIENTS_FILE,
    KEY_COLUMNS,
    METRICS_FILE,
    client_columns,
    client_lines,
    metrics_lines,
    plain,
)
from fedvtc.tracking.base import RunInfo, Tracker

CLIENT_COLUMNS = (*KEY_COLUMNS, "backbone", "num_images", "num_classes", *CLIENT_METRICS)
"""The first columns of clients.csv."""


class LineTracker(Tracker, ABC):
    """Appends the lines of each record to a file of the run folder.

    A resumed run first removes the lines after the round of its checkpoint. A failed write raises an `OSError`; its
    lines wait in memory and are written before the next lines.
    """

    file_name: str

    @property
    def num_waiting(self) -> int:
        """Lines that wait in memory."""
        return self._file.num_waiting

    def start(self, run: RunInfo) -> None:
        """Opens the file for appending; if the run is resumed, first removes later lines."""
        self._folder = run.folder
        cut = None if run.resumed_round is None else partial(self._cut, run.resumed_round)
        self._file = AppendFile(run.folder / self.file_name, cut)
        self._file.open()

    def finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()

    @abstractmethod
    def _kept(self, last_round: int) -> Iterator[bytes]:
        """Yields the lines of the file that stay when the run resumes after `last_round`."""

    def _cut(self, last_round: int) -> None:
        path = self._folder / self.file_name
        if path.is_file():
            with replaced(path) as beside, beside.open("wb") as new:
                new.writelines(self._kept(last_round))


class JsonlTracker(LineTracker):
    """Writes metrics.jsonl: each record is one JSON object on a line; numbers that are not finite become null."""

    file_name = METRICS_FILE

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends the record; the line is on the disk when this method returns."""
        self._file.append(json.dumps(plain(record), allow_nan=False) + "\n")

    def _kept(self, last_round: int) -> Iterator[bytes]:
        """Yields the first record of each round, in ascending order."""
        reached = 0
        for line in metrics_lines(self._folder):
            if line.values is None or line.values["phase"] != "round":
                continue
            if reached < line.values["round"] <= last_round:
                reached = line.values["round"]
                yield line.content


class CsvTracker(LineTracker):
    """Writes clients.csv: one row per client and evaluation.

    The header of an existing file decides the columns. A new file has `CLIENT_COLUMNS`, then all other names of the
    first rows. A missing value or a number that is not finite becomes an empty cell.
    """

    file_name = CLIENTS_FILE

    def __init__(self) -> None:
        self._columns: list[str] = []

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends one row per client, with `round` and `phase` of the record."""
        rows = [plain({"round": record["round"], "phase": record["phase"], **client}) for client in clients]
        self._file.append(self._text(rows) if rows else "")

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        known = self._columns or client_columns(self._folder)
        self._columns = known or list(dict.fromkeys([*CLIENT_COLUMNS, *(key for row in rows for key in row)]))
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        if not known:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _kept(self, last_round: int) -> Iterator[bytes]:
        """Yields the header and the undamaged rows of rounds."""
        columns = client_columns(self._folder)
        if not columns:
            return
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(columns)
        yield header.getvalue().encode()
        for line in client_lines(self._folder):
            if line.values is not None and line.values["phase"] == "round" and line.values["round"] <= last_round:
                yield line.content
