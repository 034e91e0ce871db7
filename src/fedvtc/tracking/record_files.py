"""The records of a run in its folder: metrics.jsonl and clients.csv.

Both are plain text that can be read without fedvtc, while the run goes on too.
"""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from fedvtc.learning.metrics import CLIENT_METRICS
from fedvtc.storage.append import AppendFile
from fedvtc.storage.atomic import replaced
from fedvtc.storage.records import CLIENTS_FILE, METRICS_FILE, cells_of, plain, record_of, round_of, whole_lines
from fedvtc.tracking import RunInfo, Tracker

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
            new.writelines(self._kept(whole_lines(self._path), last_round))


class JsonlTracker(LineTracker):
    """metrics.jsonl: one JSON object a line per record, on disk as soon as it is logged; what is not finite is null."""

    file_name = METRICS_FILE

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

    file_name = CLIENTS_FILE

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
            round = round_of(row.get("round", ""))
            whole = len(cells) == len(columns) and row.get("phase") == "round"
            if whole and round is not None and round <= last_round:
                yield line
