"""Means over seeds, from run folders alone: a table for the terminal, results.csv and results.md."""

import csv
import io
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fedvtc.errors import RunFolderError
from fedvtc.listing import read_records
from fedvtc.reporting.tables import human_bytes
from fedvtc.sweep.definition import Trial
from fedvtc.sweep.folder import SweepFolder
from fedvtc.sweep.naming import value_text, varying
from fedvtc.tracking.replacing import replaced

SEED = "run.seed"
METRICS = {
    "accuracy": "test/accuracy/mean",
    "worst": "test/accuracy/min",
    "missing": "test/accuracy/missing/mean",
}
"""What is shown of the final record, by the heading of its column."""
BYTES = "bytes/total"
"""Bytes that all clients together sent and received, over all rounds."""
ANEW = "Remove the folder, and start the sweep again."
NOTE = "mean +- sample standard deviation over seeds of the runs that have finished"


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed alone.

    Attributes:
        values: what they have in common, as texts, by key; texts of values that differ do too.
        num_trials: all of them.
        num_finished: those whose numbers are in the means.
        lacking: paths of those that have finished and lack records, as where the disk was full; none is in the means.
        num_stopped: those that were stopped early.
        numbers: the values of each metric, in the order of the trials; what a run does not have is left out.
        seconds: wall clock of the rounds of each.
    """

    values: Mapping[str, str]
    num_trials: int
    num_finished: int
    lacking: Sequence[Path]
    num_stopped: int
    numbers: Mapping[str, Sequence[float]]
    seconds: Sequence[float]


def groups(folder: SweepFolder) -> list[Group]:
    """The groups of a sweep, in the order of its trials."""
    trials = folder.sweep.trials
    keys = [key for key in varying([trial.values for trial in trials]) if key != SEED]
    members: dict[tuple[str | None, ...], list[Trial]] = {}
    for trial in trials:
        cell = tuple(_canonical(trial.values[key]) if key in trial.values else None for key in keys)
        members.setdefault(cell, []).append(trial)
    texts = {key: _texts(key, trials) for key in keys}
    return [
        _group(folder, {key: texts[key].get(value, "") for key, value in zip(keys, cell, strict=True)}, group)
        for cell, group in members.items()
    ]


def write_results(folder: SweepFolder) -> list[Group]:
    """Writes results.csv and results.md into the folder of a sweep, and returns what is in them.

    Measured times are in neither, so that a sweep that was interrupted has the same files as one that was not.

    Raises:
        RunFolderError: the records of a run are damaged, or the files cannot be written.
    """
    found = groups(folder)
    for name, text in (("results.csv", as_csv(found)), ("results.md", as_markdown(found, folder.sweep.name))):
        try:
            with replaced(folder.path / name) as beside:
                beside.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunFolderError(
                f"{folder.path / name}: cannot be written ({error.strerror}). Make room for it."
            ) from None
    return found


def as_csv(found: Sequence[Group]) -> str:
    """One row per group; numbers in full, an empty cell where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*METRICS.values(), BYTES]
    spreads = [f"{name}{end}" for name in columns for end in ("", "/std")]
    writer.writerow([*_keys(found), "trials", "finished", "stopped_early", *spreads])
    for group in found:
        cells: list[Any] = [group.num_trials, group.num_finished, group.num_stopped]
        for name in columns:
            cells += _mean_and_std(group.numbers[name])
        writer.writerow([*group.values.values(), *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def as_markdown(found: Sequence[Group], name: str) -> str:
    """The same as people read it."""
    headings = _headings(found)
    rows = [headings, ["---" for _ in headings], *(_row(group) for group in found)]
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([f"# {name}", "", f"{NOTE[0].upper()}{NOTE[1:]}.", "", *(f"| {line} |" for line in lines), ""])


def as_table(found: Sequence[Group]) -> Table:
    """The same for the terminal, with the wall clock of a run."""
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True, caption=NOTE)
    table.caption_justify = "left"
    for heading in [*_headings(found), "seconds"]:
        table.add_column(heading, justify="left" if heading in _keys(found) else "right")
    for group in found:
        seconds = f"{statistics.fmean(group.seconds):.0f}" if group.seconds else "-"
        table.add_row(*(Text(cell) for cell in [*_row(group), seconds]))
    return table


def _canonical(value: Any) -> str:
    """The same for equal values, and for no others: a text is cut, and two files may have one name."""
    return json.dumps(value, sort_keys=True, default=str)


def _texts(key: str, trials: Sequence[Trial]) -> dict[str | None, str]:
    """How a table shows each value of a key; those that read alike are written out."""
    values = [trial.values[key] for trial in trials if key in trial.values]
    short = {_canonical(value): value_text(key, value) for value in values}
    counts = Counter(short.values())
    return {value: text if counts[text] == 1 else value for value, text in short.items()}


def _group(folder: SweepFolder, values: Mapping[str, str], trials: Sequence[Trial]) -> Group:
    states = [folder.state(trial) for trial in trials]
    numbers: dict[str, list[float]] = {name: [] for name in (*METRICS.values(), BYTES)}
    seconds, lacking = [], []
    for trial, state in zip(trials, states, strict=True):
        if state != "finished":
            continue
        try:
            records = read_records(trial.path / "metrics.jsonl")
            if not _are_whole(records, trial.config.run.rounds):
                lacking.append(trial.path)
                continue
            own = _numbers(records)
            seconds.append(float(sum(record.get("time/round") or 0.0 for record in records)))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(f"{trial.path}: metrics.jsonl is damaged ({error}). {ANEW}") from None
        for name, number in own.items():
            numbers[name].append(number)
    return Group(
        values=values,
        num_trials=len(trials),
        num_finished=states.count("finished") - len(lacking),
        lacking=lacking,
        num_stopped=states.count("stopped early"),
        numbers=numbers,
        seconds=seconds,
    )


def _are_whole(records: Sequence[Mapping[str, Any]], num_rounds: int) -> bool:
    """Whether every round has its record, and the last step too."""
    steps = [(record.get("phase"), record.get("round")) for record in records]
    return steps == [*(("round", number) for number in range(1, num_rounds + 1)), ("final", num_rounds)]


def _numbers(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of one run, by metric; what its final record does not have is left out."""
    final = records[-1]
    numbers = {name: float(final[name]) for name in METRICS.values() if final.get(name) is not None}
    parts = [part for record in records for key, part in record.items() if key.startswith("bytes/")]
    return numbers | {BYTES: float(sum(parts))}


def _keys(found: Sequence[Group]) -> list[str]:
    return list(found[0].values) if found else []


def _headings(found: Sequence[Group]) -> list[str]:
    return [*_keys(found), "finished", *METRICS, "bytes"]


def _row(group: Group) -> list[str]:
    finished = f"{group.num_finished}/{group.num_trials}"
    if group.num_stopped:
        finished += f", {group.num_stopped} stopped"
    spreads = [_spread(group.numbers[name]) for name in METRICS.values()]
    size = _mean_and_std(group.numbers[BYTES])[0]
    return [*group.values.values(), finished, *spreads, "-" if size is None else human_bytes(size)]


def _spread(values: Sequence[float]) -> str:
    mean, std = _mean_and_std(values)
    return "-" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} +- {std:.4f}"


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and sample standard deviation (n - 1), which one value does not have."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )
