"""Writes evaluations.csv of a run folder: the final models on other test sets."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedvtc.errors import RunFolderError
from fedvtc.storage.atomic import replaced

EVALUATIONS_FILE = "evaluations.csv"
"""One row per client and test set, below a header."""


def save_evaluations(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Adds rows to evaluations.csv; a row replaces the row of the same `client` and `on`.

    Args:
        folder: the run folder.
        rows: rows of the same keys, with `client` and `on`.

    Returns:
        The path of the file.

    Raises:
        RunFolderError: the file cannot be read or written.
    """
    file = folder / EVALUATIONS_FILE
    try:
        kept = {(str(row["client"]), row["on"]): row for row in read_evaluations(folder)}
        kept |= {(str(row["client"]), str(row["on"])): dict(row) for row in rows}
        with replaced(file) as beside, beside.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept.values())
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be written ({error.strerror}). Make the folder writable.") from None
    return file


def read_evaluations(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of evaluations.csv; none if the file is missing or has other columns."""
    with suppress(FileNotFoundError), (folder / EVALUATIONS_FILE).open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if {"client", "on"} <= set(reader.fieldnames or ()):
            return list(reader)
    return []
