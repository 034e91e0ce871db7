"""Shows one run in lines: config, curve of accuracy, bytes, seconds by phase, incidents, next commands."""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedvtc.errors import count_of
from fedvtc.learning.metrics import EVALUATED_CLIENTS, HEADLINE_METRICS
from fedvtc.reporting.run_facts import RunFacts
from fedvtc.reporting.run_numbers import COMPUTING, RECEIVED, SENT, WALL_CLOCK
from fedvtc.reporting.run_values import values_of
from fedvtc.reporting.runs import RESUMABLE, RunRow, next_command
from fedvtc.reporting.seeds import badness
from fedvtc.reporting.tables import human_bytes

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII = "_.,-~=+#"
"""Letters of a sparkline, the lowest first, for an output that has no block letters."""
MAX_LETTERS = 50
MAX_MESSAGES = 10
_TOTALS = (COMPUTING, WALL_CLOCK)


def summary_lines(run: RunFacts, encoding: str = "utf-8") -> list[str]:
    """Returns the lines about a run.

    Args:
        run: the run.
        encoding: encoding of the output; without block letters in it the curve is drawn in ASCII.

    Raises:
        ValueError: the config or a record is damaged.
    """
    row = RunRow(run, values_of(run))
    return [
        f"{run.name}: {run.status.name}{f' ({run.status.reason})' if run.status.reason else ''}",
        *_facts(row),
        *_curve(run, encoding),
        *_costs(row),
        *_incidents(run),
        "next",
        *(f"  {command}" for command in _commands(run)),
    ]


def sparkline(values: Sequence[float], letters: str) -> str:
    """Returns one letter a value, from the lowest to the highest; `?` for a value that is not finite.

    More than `MAX_LETTERS` values are thinned out.
    """
    if len(values) > MAX_LETTERS:
        step = (len(values) - 1) / (MAX_LETTERS - 1)
        values = [values[round(number * step)] for number in range(MAX_LETTERS)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(letters) - 1) / (high - low) if high > low else 0.0
    return "".join(letters[round((value - low) * scale)] if math.isfinite(value) else "?" for value in values)


def _facts(row: RunRow) -> Iterator[str]:
    run, versions = row.run, row.run.description.get("versions", {})
    attempts = _attempts(run)
    ended = run.description.get("ended")
    end = f", ended {ended}" if ended else ""
    yield _line("folder", str(run.folder))
    yield _line("method", run.method)
    data, partition, seed = map(row.text, ("data", "partition", "seed"))
    number = row.values.get("clients")
    clients = count_of(number, "client") if isinstance(number, int) else "? clients"
    yield _line("data", f"{data}, {partition}, {clients}, seed {seed}")
    yield _line("round", row.text("round"))
    yield _line("started", f"{run.created or '?'}{end}, attempt {len(attempts)}")
    if run.status.holder:
        yield _line("process", run.status.holder)
    if isinstance(versions, Mapping) and versions:
        shown = [f"{name} {versions[name]}" for name in ("fedvtc", "torch") if name in versions]
        yield _line("versions", ", ".join(shown))


def _curve(run: RunFacts, encoding: str) -> Iterator[str]:
    accuracy = HEADLINE_METRICS["accuracy"]
    measured = [record for record in run.records if record.get(accuracy) is not None]
    if not measured:
        return
    last = {heading: measured[-1].get(name) for heading, name in HEADLINE_METRICS.items()}
    # The final evaluation has other clients than the samples of rounds.
    num_clients = measured[0].get(EVALUATED_CLIENTS)
    measured = [record for record in measured if record.get(EVALUATED_CLIENTS) == num_clients]
    sample = f" of {count_of(num_clients, 'client')}" if num_clients is not None else ""
    values = [float(record[accuracy]) for record in measured]
    best = min(measured, key=lambda record: badness(float(record[accuracy]), higher_is_better=True))
    at = "at the end" if best["phase"] == "final" else f"in round {best['round']}"
    found = f"best {best[accuracy]:.3f} {at}, " if math.isfinite(best[accuracy]) else ""
    try:
        BLOCKS.encode(encoding)
        letters = BLOCKS
    except (UnicodeEncodeError, LookupError):
        letters = ASCII
    yield _line("accuracy", f"{sparkline(values, letters)}  {values[0]:.3f} to {values[-1]:.3f}")
    yield _line("", f"{found}{count_of(len(values), 'evaluation')}{sample}")
    yield _line("last", ", ".join(f"{name} {value:.3f}" for name, value in last.items() if value is not None))


def _costs(row: RunRow) -> Iterator[str]:
    values = row.values
    if not row.run.records:
        return
    yield _line("bytes", f"up {human_bytes(values[SENT])}, down {human_bytes(values[RECEIVED])}")
    yield _line("seconds", f"{values[WALL_CLOCK]:.1f} wall clock, {values[COMPUTING]:.1f} of clients and server")
    phases = {name: value for name, value in values.items() if name.startswith("time/") and name not in _TOTALS}
    peaks = {name: values.get(f"memory/{name.removeprefix('time/')}") for name in phases}
    if any(peaks.values()):
        yield f"  {'':<10}{'phase':<20}{'seconds':>10}{'peak memory':>14}"
    for name, seconds in sorted(phases.items(), key=lambda phase: -phase[1]):
        peak = f"{human_bytes(found):>14}" if (found := peaks[name]) else ""
        yield f"  {'':<10}{name.removeprefix('time/'):<20}{seconds:>10.1f}{peak}"


def _incidents(run: RunFacts) -> Iterator[str]:
    counts = sum((Counter(attempt.get("incidents", {})) for attempt in _attempts(run)), Counter[str]())
    recorded = Counter[str]()
    for record in run.records:
        recorded.update({key.partition("/")[2]: int(record[key]) for key in record if key.startswith("incidents/")})
    # An attempt that was killed has no counts in run.json, and a failed round has no record.
    found = counts | recorded
    if found:
        words = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in sorted(found.items()))
        yield _line("incidents", words)
    messages = [f"round {record['round']}: {text}" for record in run.records for text in record.get("incidents") or ()]
    yield from (f"  {'':<10}{message}" for message in messages[:MAX_MESSAGES])
    if len(messages) > MAX_MESSAGES:
        yield f"  {'':<10}and {len(messages) - MAX_MESSAGES} more in metrics.jsonl"


def _commands(run: RunFacts) -> Iterator[str]:
    folder = shlex.quote(str(run.folder))
    if run.status.name == "running":
        yield f"fedvtc show {folder}"
        return
    yield from next_command(run).split(", or ")
    if run.status.name in RESUMABLE:
        yield f"fedvtc doctor {folder}"
    else:
        yield f"fedvtc report {folder}"
        yield f"fedvtc table {shlex.quote(str(run.folder.parent))}"


def _attempts(run: RunFacts) -> list[Mapping[str, Any]]:
    attempts = run.description.get("attempts")
    return [one for one in attempts if isinstance(one, Mapping)] if isinstance(attempts, list) else []


def _line(name: str, text: str) -> str:
    return f"  {name:<10}{text}"
