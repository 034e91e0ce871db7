"""Checks of the records of a run: metrics.jsonl and clients.csv, line by line."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding
from fedvtc.storage.records import client_columns, client_lines, is_torn, metrics_lines

MAX_SHOWN = 5
LEAVE_OUT = "Leave these out when you read it, or run it anew under another name."
RESUME = "fedvtc resume drops it and does its round again."


def metrics(folder: Path, num_rounds: int | None, *, is_finished: bool, is_live: bool) -> Iterator[Finding]:
    """Whether metrics.jsonl has one whole record of every round.

    Args:
        folder: of the run.
        num_rounds: rounds of the run; None where that is not known.
        is_finished: whether all rounds and the final record must be there.
        is_live: whether a process writes it now.
    """
    what = "metrics.jsonl"
    file = folder / what
    if not file.exists():
        yield _absent(what, is_finished=is_finished)
        return
    rounds: Counter[int] = Counter()
    finals, damaged = 0, []
    for line in metrics_lines(folder):
        if line.values is None:
            damaged.append(line.number)
        elif line.values["phase"] == "final":
            finals += 1
        else:
            rounds[line.values["round"]] += 1
    faults = []
    if damaged:
        faults.append(f"no record in line {_shown(damaged)}")
    last = max(rounds, default=0)
    if num_rounds and is_finished:
        last = max(last, num_rounds)
    # Not all of them at once, for a damaged record may name any round.
    missing = islice((round for round in range(1, last + 1) if round not in rounds), MAX_SHOWN)
    if num_missing := last - sum(1 <= round <= last for round in rounds):
        faults.append(f"no record of round {_shown(missing, num_missing)}")
    if doubled := sorted(round for round, count in rounds.items() if count > 1):
        faults.append(f"more than one record of round {_shown(doubled)}")
    if is_finished and finals != 1:
        faults.append(f"{finals} final records where one is expected")
    yield from (Finding(what, "fault", fault, LEAVE_OUT) for fault in faults)
    if is_torn(file) and not is_live:
        yield _torn(what, is_finished=is_finished)
    elif not faults:
        yield Finding(what, "ok", f"{len(rounds)} rounds{', and the final record' * bool(finals)}")


def clients(folder: Path, *, is_finished: bool, is_live: bool) -> Iterator[Finding]:
    """Whether the rows of clients.csv are whole, and none is there twice.

    Args:
        folder: of the run.
        is_finished: whether it must be there.
        is_live: whether a process writes it now.
    """
    what = "clients.csv"
    file = folder / what
    if not file.exists():
        yield _absent(what, is_finished=is_finished)
        return
    if not client_columns(folder) and not is_torn(file):
        yield Finding(what, "fault", "its first line does not name the columns", LEAVE_OUT)
        return
    seen: Counter[tuple[int, str, str]] = Counter()
    damaged = []
    for line in client_lines(folder):
        if line.values is None:
            damaged.append(line.number)
        else:
            seen[line.values["round"], line.values["phase"], line.values["client"]] += 1
    faults = [f"line {_shown(damaged)} has not as many cells as the first"] if damaged else []
    if doubled := [key for key, count in seen.items() if count > 1]:
        shown = _shown(f"{client} in round {round}" for round, _, client in doubled)
        faults.append(f"more than one row of client {shown}")
    yield from (Finding(what, "fault", fault, LEAVE_OUT) for fault in faults)
    if is_torn(file) and not is_live:
        yield _torn(what, is_finished=is_finished)
    elif not faults:
        yield Finding(what, "ok", f"{seen.total()} rows")


def _absent(what: str, *, is_finished: bool) -> Finding:
    if is_finished:
        return Finding(what, "fault", "is missing", "Run it anew under another name.")
    return Finding(what, "ok", "not there yet")


def _torn(what: str, *, is_finished: bool) -> Finding:
    return Finding(what, "warning", "its last line is torn", "Leave that line out." if is_finished else RESUME)


def _shown(values: Iterable[object], num: int | None = None) -> str:
    """The first few, and how many more there are; of `num`, where those that are given are not all."""
    texts = [str(value) for value in values]
    num = len(texts) if num is None else num
    more = f" and {num - MAX_SHOWN} more" if num > MAX_SHOWN else ""
    return ", ".join(texts[:MAX_SHOWN]) + more
