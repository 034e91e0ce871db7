"""The numbers of one run in tables, computed from the records of the run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedvtc.learning.metrics import SUMMED
from fedvtc.storage.records import METRICS_FILE

ACCURACY = "test/accuracy/mean"
SENT, RECEIVED = "bytes/up", "bytes/down"
COMPUTING, WALL_CLOCK = "time/client", "time/round"
"""Seconds of a whole run: of the clients' and the server's computing, and wall clock."""
CPU, FLOPS = "cpu/total", "flops/total"
"""CPU seconds and floating-point operations of a whole run, of clients and server."""
TARGET_ROUNDS, TARGET_BYTES, TARGET_SECONDS = "target/rounds", "target/bytes", "target/seconds"

Record = Mapping[str, Any]
_EVALUATION = ("test/", "validation/")
_SUMMED = ("bytes/", *SUMMED)
_NEWEST = ("loss/", "memorisation/", "privacy/")
_NOT_COMPUTING = ("time/evaluate", "time/round", "time/makespan", "time/makespan/predicted")
"""Times that are not those of one client or of the server's computing."""


def numbers_of(records: Sequence[Record], target: float | None = None) -> dict[str, float]:
    """Returns the numbers of a run by name; a number that the records lack is left out.

    Metrics of an evaluation are those of the last record. Bytes, seconds and operations are sums over all records: by
    kind or phase, and together under `bytes/up`, `bytes/down`, `time/client` (clients and server), `time/round`,
    `cpu/total` and `flops/total`. Losses, memorisation and the privacy loss are those of the last record that has them;
    memory is the maximum.

    Args:
        records: all records, in order; the last of a finished run is the final record.
        target: mean accuracy up to which rounds, bytes and seconds are counted; None counts nothing.

    Raises:
        ValueError: a value is no number.
    """
    try:
        return _numbers(records, target)
    except TypeError as error:
        raise ValueError(f"{METRICS_FILE}: {error}") from None


def numbers_so_far(records: Sequence[Record]) -> dict[str, float]:
    """Returns the numbers of a run that may continue: the newest value of each metric, sums up to now.

    Raises:
        ValueError: a value is no number.
    """
    newest: dict[str, Any] = {}
    for record in records:
        newest |= {name: value for name, value in record.items() if name.startswith(_EVALUATION)}
    return numbers_of([*records[:-1], newest | dict(records[-1])]) if records else {}


def are_whole(records: Sequence[Record], num_rounds: object) -> bool:
    """True if the records are one record of each round, in order, and then the final record."""
    steps = [(record.get("phase"), record.get("round")) for record in records]
    rounds = range(1, len(records))
    return steps == [*(("round", number) for number in rounds), ("final", num_rounds)] and num_rounds == len(rounds)


def wall_clock_s(records: Sequence[Record]) -> float:
    """Returns the seconds of all rounds and of the last step, wall clock."""
    return float(sum(record.get(WALL_CLOCK) or 0.0 for record in records))


def computing_s(records: Sequence[Record]) -> float:
    """Returns the seconds of clients and server: of whole client rounds, or of phases in a record without these."""
    return float(sum(seconds for record in records for seconds in _parts_s(record)))


def _numbers(records: Sequence[Record], target: float | None) -> dict[str, float]:
    last = records[-1]
    numbers = {name: float(last[name]) for name in last if name.startswith(_EVALUATION) and last[name] is not None}
    numbers |= {name: _sum(records, f"{name}/") for name in (SENT, RECEIVED)}
    numbers |= {COMPUTING: computing_s(records), WALL_CLOCK: wall_clock_s(records)}
    numbers |= {name: total for name, total in ((CPU, _cpu_s(records)), (FLOPS, _sum(records, "flops/"))) if total}
    names = dict.fromkeys(name for record in records for name in record if name not in numbers)
    for name in names:
        values = [record[name] for record in records if record.get(name) is not None]
        if name.startswith(_NEWEST) and values:
            numbers[name] = float(values[-1])
        elif name.startswith(_SUMMED) and not name.startswith("time/makespan"):
            numbers[name] = float(sum(values))
        elif name.startswith("memory/") and values:
            numbers[name] = float(max(values))
    reached = next((n for n, record in enumerate(records) if target and _reaches(record, target)), None)
    if reached is not None:
        until = records[: reached + 1]
        numbers[TARGET_ROUNDS] = float(until[-1]["round"])
        numbers[TARGET_BYTES] = sum(_sum(until, f"{name}/") for name in (SENT, RECEIVED))
        numbers[TARGET_SECONDS] = wall_clock_s(until)
    return numbers


def _reaches(record: Record, target: float) -> bool:
    return target <= (record.get(ACCURACY) or 0) < math.inf


def _cpu_s(records: Sequence[Record]) -> float:
    """Returns the CPU seconds of whole client rounds and of the server's halves of the rounds."""
    return float(sum(record.get(name) or 0.0 for record in records for name in ("cpu/client", "cpu/server")))


def _sum(records: Sequence[Record], start: str) -> float:
    return float(sum(part for record in records for key, part in record.items() if key.startswith(start)))


def _parts_s(record: Record) -> Iterator[float]:
    for key, seconds in record.items():
        is_phase = key.startswith("time/") and key not in (*_NOT_COMPUTING, COMPUTING)
        # The seconds of a client's whole round contain those of its phases.
        if key == COMPUTING or (is_phase and (COMPUTING not in record or key.startswith("time/server/"))):
            yield seconds or 0.0
