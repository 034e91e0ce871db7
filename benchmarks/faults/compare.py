"""Compares two runs of one federation bit by bit."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedvtc.learning.metrics import MEASURED

IGNORED = (*MEASURED, "incidents")
"""Prefixes of keys whose values depend on clocks, on processes or on the disturbance itself."""


@dataclass(frozen=True)
class Result:
    """Results of a run.

    Attributes:
        records: records of metrics.jsonl, without ignored keys.
        rows: rows of clients.csv.
        weights: SHA-256 of each client's state in the final checkpoint, by file name.
    """

    records: list[dict[str, Any]]
    rows: list[dict[str, str]]
    weights: dict[str, str]

    @classmethod
    def of(cls, run: Path, checkpoints: Path) -> "Result":
        """Reads a run folder, and the final checkpoint anywhere below a second folder.

        Raises:
            ValueError: a record is torn.
            csv.Error: a row is torn.
        """
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n")[:-1]]
        with (run / "clients.csv").open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        shards = sorted(checkpoints.glob("**/final/client_*.pt"))
        return cls([_kept(record) for record in records], rows, {path.name: digest(path) for path in shards})

    def num_lost(self, num_rounds: int) -> int:
        """Number of rounds without a record, plus the number of second records of a round."""
        rounds = [record["round"] for record in self.records if record["phase"] == "round"]
        return len(set(range(1, num_rounds + 1)).symmetric_difference(rounds)) + len(rounds) - len(set(rounds))


def digest(path: Path) -> str:
    """SHA-256 over the names, types, shapes and bytes in a file of tensors."""
    hashed = hashlib.sha256()
    for name, value in _leaves("", torch.load(path, weights_only=True, map_location="cpu")):
        if isinstance(value, torch.Tensor):
            hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            hashed.update(value.contiguous().numpy().tobytes())
        else:
            hashed.update(f"{name} {value!r}".encode())
    return hashed.hexdigest()


def differences(expected: Result, found: Result) -> list[str]:
    """Lines for the first record and the first row that differ, and for different numbers of records or rows."""
    problems = []
    for what, wanted, got in (("record", expected.records, found.records), ("row", expected.rows, found.rows)):
        if len(wanted) != len(got):
            problems.append(f"{len(got)} {what}s, not {len(wanted)}")
        for index, (one, other) in enumerate(zip(wanted, got, strict=False)):
            keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
            if keys:
                problems.append(f"{what} {index}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}")
                break
    return problems


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.startswith(IGNORED)}


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(f"{name}/{key}", value)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _leaves(f"{name}/{index}", value)
    else:
        yield name, tree
