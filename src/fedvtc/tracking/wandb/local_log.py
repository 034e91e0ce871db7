"""Which rounds the files of a W&B run hold: what its service has taken, also where its process was killed.

The format is that of LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header of
seven bytes; each record is a `Record` of W&B's protocol.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER_BYTES = 7
BLOCK_BYTES = 2**15
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Kinds of chunks: a whole record, or a part of one."""


def logged_values(folder: Path, run_id: str, name: str) -> list[float]:
    """Every value that was logged under a name, in all attempts at a run, in the order of the attempts.

    Args:
        folder: that W&B writes its folders into.
        run_id: of the W&B run.
        name: of the metric.
    """
    # Folders of the same second end in a number.
    files = sorted(folder.glob(f"*run-*-{run_id}*/run-*.wandb"))
    return [row[name] for file in files for row in rows(file) if name in row]


def drop_empty(folder: Path) -> None:
    """Removes offline runs that ended before anything of them was written: `wandb sync` would stop at them.

    Args:
        folder: that W&B writes its folders into.
    """
    for path in folder.glob("offline-run-*"):
        if all(next(records(file), None) is None for file in path.glob("run-*.wandb")):
            shutil.rmtree(path, ignore_errors=True)


def rows(file: Path) -> Iterator[dict[str, float]]:
    """The rows of history in one file: numbers by name."""
    for record in records(file):
        if record.HasField("history"):
            values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            parsed = {name: json.loads(value) for name, value in values.items()}
            yield {name: value for name, value in parsed.items() if isinstance(value, int | float)}


def records(file: Path) -> Iterator[Any]:
    """The records of one file, as W&B's own messages. A torn end is left out."""
    from wandb.proto import wandb_internal_pb2

    # Its classes are made when it is imported, where no type checker sees them.
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
            # Too little for a chunk: filled with zeros.
            place += left
            continue
        num_bytes, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        begin, place = place + HEADER_BYTES, place + HEADER_BYTES + num_bytes
        if kind not in (FULL, FIRST, MIDDLE, LAST) or place > len(content):
            return
        parts = content[begin:place] if kind in (FULL, FIRST) else parts + content[begin:place]
        if kind in (FULL, LAST):
            yield parts
