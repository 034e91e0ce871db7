"""Checks the records of a run, metrics.jsonl and clients.csv, line by line."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding
from fedvtc.errors import count_of
from fedvtc.storage.records import client_columns, client_lines, is_torn, metrics_lines

MAX_SHOWN = 5
REPEAT = "If you need the complete file, repeat the run under another run.name."
RESUME = "fedvtc resume drops this line and repeats the round."


def metrics(folder: Path, num_rounds: int | None, *, is_finished: bool, is_live: bool) -> Iterator[Finding]:
    """Checks that metrics.jsonl has exactly one record of every round.

    Args:
        folder: the run folder.
        num_rounds: rounds of the run; None if config.yaml cannot be read.
        is_finished: True if every round and the final record must be present.
        is_live: True if a process is writing the run.
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
        faults.append(f"line {_shown(damaged)}: not a record")
    last = max(rounds, default=0)
    if num_rounds and is_finished:
        last = max(last, num_rounds)
    if missing := [round for round in range(1, last + 1) if round not in rounds]:
        faults.append(f"no record of round {_shown(missing)}")
    if doubled := sorted(round for round, count in rounds.items() if count > 1):
        faults.append(f"more than one record of round {_shown(doubled)}")
    if is_finished and finals != 1:
        faults.append(f"{finals} final records, expected 1")
    yield from (Finding(what, "fault", fault, REPEAT) for fault in faults)
    if is_torn(file) and not is_live:
        yield _torn(what, is_finished=is_finished)
    elif not faults:
        yield Finding(what, "ok", f"{count_of(len(rounds), 'round')}{', and the final record' * bool(finals)}")


def clients(folder: Path, *, is_finished: bool, is_live: bool) -> Iterator[Finding]:
    """Checks that every row of clients.csv has all cells, and that no row is doubled.

    Args:
        folder: the run folder.
        is_finished: True if the file must be present.
        is_live: True if a process is writing the run.
    """
    what = "clients.csv"
    file = folder / what
    # A run opens the file when it starts, and writes the header with the first evaluation.
    if not file.exists() or file.stat().st_size == 0:
        yield _absent(what, is_finished=is_finished)
        return
    if not client_columns(folder) and not is_torn(file):
        yield Finding(what, "fault", "the first line does not name the columns", REPEAT)
        return
    seen: Counter[tuple[int, str, str]] = Counter()
    damaged = []
    for line in client_lines(folder):
        if line.values is None:
            damaged.append(line.number)
        else:
            seen[line.values["round"], line.values["phase"], line.values["client"]] += 1
    faults = [f"line {_shown(damaged)}: another number of cells than in the first line"] if damaged else []
    if doubled := [key for key, count in seen.items() if count > 1]:
        shown = _shown(f"{client} in round {round}" for round, _, client in doubled)
        faults.append(f"more than one row of client {shown}")
    yield from (Finding(what, "fault", fault, REPEAT) for fault in faults)
    if is_torn(file) and not is_live:
        yield _torn(what, is_finished=is_finished)
    elif not faults:
        yield Finding(what, "ok", count_of(seen.total(), "row"))


def _absent(what: str, *, is_finished: bool) -> Finding:
    if is_finished:
        return Finding(what, "fault", "is missing", "Repeat the run under another run.name.")
    return Finding(what, "ok", "not written yet")


def _torn(what: str, *, is_finished: bool) -> Finding:
    return Finding(what, "warning", "the last line is incomplete", "Ignore this line." if is_finished else RESUME)


def _shown(values: Iterable[object]) -> str:
    """The first values, and the number of the others."""
    texts = [str(value) for value in values]
    num_more = len(texts) - MAX_SHOWN
    return ", ".join(texts[:MAX_SHOWN]) + (f" and {num_more} more" if num_more > 0 else "")
