"""Finds run folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedvtc.errors import UserError
from fedvtc.storage.records import METRICS_FILE

RUN_FILES = ("run.json", METRICS_FILE)
"""A folder with one of these files is a run folder. A config.yaml proves nothing: users keep config files anywhere."""
MAX_LEVELS = 2
"""Number of levels below a given folder that are searched for run folders."""


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
