"""Reads W&B's own files in the run folder to find the rounds that W&B has stored, also after a kill.

A file of our own with the last logged round cannot replace these files. `wandb.Run.log` returns before W&B's service
has written anything: a program that logs three rounds in three seconds and dies by SIGKILL leaves a file with a header
and no round. If our file were written right after `log`, the resumed run would skip these three rounds. If our file
were written later, the resumed run would log stored rounds again, and W&B keeps both rows: a repeated value of the
step metric replaces nothing.

The format is the log format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header
of seven bytes. Each record is a `Record` of W&B's protocol. wandb itself has no reader in Python.
"""

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HEADER_BYTES = 7
BLOCK_BYTES = 2**15
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Kinds of chunks: a whole record, or the first, a middle or the last part."""


def logged_values(folder: Path, run_id: str, name: str) -> list[float]:
    """Returns all stored values of a metric, over all attempts of a run, in the order of the attempts.

    Args:
        folder: `wandb/` of the run folder, with a folder for each attempt.
        run_id: id of the W&B run.
        name: name of the metric.
    """
    # If two folders are made in one second, the second folder has a number after the id.
    files = sorted(folder.glob(f"*run-*-{run_id}*/run-*.wandb"))
    return [row[name] for file in files for row in rows(file) if name in row]


def drop_empty(folder: Path) -> None:
    """Removes offline folders of attempts that ended before W&B stored a record: `wandb sync` would stop at them.

    Args:
        folder: `wandb/` of the run folder.
    """
    for path in folder.glob("offline-run-*"):
        if all(next(records(file), None) is None for file in path.glob("run-*.wandb")):
            shutil.rmtree(path, ignore_errors=True)


def upload_command(folders: Sequence[Path]) -> str:
    """Returns the command that uploads the files of attempts.

    Args:
        folders: folders of attempts in `wandb/` of the run folder.
    """
    # Without the option, `wandb sync` skips the folders of online runs; W&B knows these folders by their names.
    is_offline = all(path.name.startswith("offline-") for path in folders)
    return shlex.join(["wandb", "sync", *([] if is_offline else ["--include-online"]), *map(str, folders)])


def rows(file: Path) -> Iterator[dict[str, float]]:
    """Yields the logged rows of one file as numbers by name."""
    for record in records(file):
        if record.HasField("history"):
            values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            parsed = {name: json.loads(value) for name, value in values.items()}
            yield {name: value for name, value in parsed.items() if isinstance(value, int | float)}


def records(file: Path) -> Iterator[Any]:
    """Yields the records of one file as messages of W&B's protocol; an incomplete last record is skipped."""
    from wandb.proto import wandb_internal_pb2

    # The module makes its classes on import, so type checkers do not see them.
    make_record: Any = vars(wandb_internal_pb2)["Record"]
    for chunk in _chunks(file):
        record = make_record()
        record.ParseFromString(chunk)
        yield record


def _chunks(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    place, parts = HEADER_BYTES, b""
    while place + HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER_BYTES:
            # Too short for a chunk: filled with zeros.
            place += left
            continue
        num_bytes, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        begin, place = place + HEADER_BYTES, place + HEADER_BYTES + num_bytes
        if kind not in (FULL, FIRST, MIDDLE, LAST) or place > len(content):
            return
        parts = content[begin:place] if kind in (FULL, FIRST) else parts + content[begin:place]
        if kind in (FULL, LAST):
            yield parts
