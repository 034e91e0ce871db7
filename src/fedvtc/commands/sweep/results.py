"""The table of a sweep, computed from its run folders: results.csv and results.md with means over seeds."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.run_numbers import numbers_of
from fedvtc.commands.sweep.trial_names import value_text, varying
from fedvtc.commands.sweep.trials import Trial
from fedvtc.errors import RunFolderError
from fedvtc.reporting.means import BYTES, METRICS, SECONDS, TARGET_SECONDS, TO_TARGET, Group, as_csv, as_markdown
from fedvtc.storage.atomic import replaced
from fedvtc.storage.records import read_metrics

SEED = "run.seed"
RESTART_FIX = "Remove the folder and start the sweep again."


def groups(folder: SweepFolder) -> list[Group]:
    """Returns one group for trials that differ in their seed only, in the order of the trials."""
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
    """Writes results.csv and results.md into the sweep folder, and returns their groups.

    The files contain no measured times, so an interrupted and resumed sweep gets the same files as an undisturbed one.

    Raises:
        RunFolderError: metrics.jsonl of a run cannot be read, or the files cannot be written.
    """
    found = groups(folder)
    for name, text in (("results.csv", as_csv(found)), ("results.md", as_markdown(found, folder.sweep.name))):
        try:
            with replaced(folder.path / name) as beside:
                beside.write_text(text, encoding="utf-8")
        except OSError as error:
            fix = "Check permissions and free disk space."
            raise RunFolderError(f"{folder.path / name}: cannot be written ({error.strerror}). {fix}") from None
    return found


def _canonical(value: Any) -> str:
    """Returns a text that is equal for equal values only; `value_text` shortens, so its texts may coincide."""
    return json.dumps(value, sort_keys=True, default=str)


def _texts(key: str, trials: Sequence[Trial]) -> dict[str | None, str]:
    """Returns the text of each value of a key for the table; values with equal short texts are written in full."""
    values = [trial.values[key] for trial in trials if key in trial.values]
    short = {_canonical(value): value_text(key, value) for value in values}
    counts = Counter(short.values())
    return {value: text if counts[text] == 1 else value for value, text in short.items()}


def _group(folder: SweepFolder, values: Mapping[str, str], trials: Sequence[Trial]) -> Group:
    states = [folder.state(trial) for trial in trials]
    names = (*METRICS.values(), *BYTES.values(), *SECONDS.values(), *TO_TARGET.values(), TARGET_SECONDS)
    numbers: dict[str, list[float]] = {name: [] for name in names}
    target, incomplete_runs = folder.sweep.target, []
    for trial, state in zip(trials, states, strict=True):
        if state != "finished":
            continue
        try:
            read = read_metrics(trial.path)
            records = read.records
            if read.damaged_lines or not _are_whole(records, trial.config.run.rounds):
                incomplete_runs.append(trial.path)
                continue
            own = numbers_of(records, target)
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(f"{trial.path}: metrics.jsonl is damaged ({error}). {RESTART_FIX}") from None
        for name, number in own.items():
            numbers[name].append(number)
    return Group(
        values=values,
        num_trials=len(trials),
        num_finished=states.count("finished") - len(incomplete_runs),
        incomplete_runs=incomplete_runs,
        num_stopped=states.count("stopped early"),
        numbers=numbers,
        target=target,
    )


def _are_whole(records: Sequence[Mapping[str, Any]], num_rounds: int) -> bool:
    """True if the records are one record of each round, in order, and then the final record."""
    steps = [(record.get("phase"), record.get("round")) for record in records]
    return steps == [*(("round", number) for number in range(1, num_rounds + 1)), ("final", num_rounds)]
