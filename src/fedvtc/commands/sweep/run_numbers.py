"""The numbers of one run in the table of a sweep, computed from the records of the run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedvtc.reporting.means import BYTES, METRICS, SECONDS, TARGET_SECONDS, TO_TARGET

Record = Mapping[str, Any]
_WALL_CLOCK = ("time/evaluate", "time/round", "time/makespan", "time/makespan/predicted")
"""Times that are not those of one client or of the server's computing."""


def numbers_of(records: Sequence[Record], target: float | None) -> dict[str, float]:
    """Returns the numbers of a finished run by name; a number that the records lack is left out.

    Args:
        records: all records, in order; the last is the final record.
        target: mean accuracy up to which rounds, bytes and seconds are counted; None counts nothing.

    Raises:
        ValueError: a value is no number.
        TypeError: a value is no number.
    """
    final = records[-1]
    numbers = {name: float(final[name]) for name in METRICS.values() if final.get(name) is not None}
    numbers |= {name: _sum(records, f"{name}/") for name in BYTES.values()}
    computing, wall_clock = SECONDS.values()
    numbers |= {computing: sum(map(_computing_s, records)), wall_clock: _wall_clock_s(records)}
    accuracy = METRICS["accuracy"]
    reached = next((n for n, record in enumerate(records) if target and (record.get(accuracy) or 0) >= target), None)
    if reached is not None:
        until = records[: reached + 1]
        numbers[TO_TARGET["rounds"]] = float(until[-1]["round"])
        numbers[TO_TARGET["MB"]] = sum(_sum(until, f"{name}/") for name in BYTES.values())
        numbers[TARGET_SECONDS] = _wall_clock_s(until)
    return numbers


def _sum(records: Sequence[Record], start: str) -> float:
    return float(sum(part for record in records for key, part in record.items() if key.startswith(start)))


def _wall_clock_s(records: Sequence[Record]) -> float:
    return float(sum(record.get("time/round") or 0.0 for record in records))


def _computing_s(record: Record) -> float:
    """Returns the seconds of clients and server: of whole client rounds, or of phases in a record without these."""
    return float(sum(_parts_s(record)))


def _parts_s(record: Record) -> Iterator[float]:
    for key, seconds in record.items():
        is_phase = key.startswith("time/") and key not in (*_WALL_CLOCK, "time/client")
        # The seconds of a client's whole round contain those of its phases.
        if key == "time/client" or (is_phase and ("time/client" not in record or key.startswith("time/server/"))):
            yield seconds or 0.0
