"""Trials as rows of numbers, read from sweep folders and run folders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fedvtc.errors import RunFolderError, UserError
from fedvtc.reporting.comparison.values import EVALUATIONS, result_keys, varying, with_shared, with_texts
from fedvtc.reporting.run_facts import DAMAGE, METHOD, SEED, RunFacts, damage, read_run
from fedvtc.reporting.run_folders import find_runs
from fedvtc.reporting.run_numbers import are_whole, numbers_of

DEFINITION = "sweep.yaml"
"""The file of a sweep folder that names the trials."""
STOPPED_FILE = "stopped_early.json"
"""The file of a sweep folder that names the trials that were stopped early."""
FINISHED, STOPPED, INCOMPLETE, ABSENT = "finished", "stopped early", "incomplete", "absent"
"""States of trials: numbers count; stopped by the sweep; finished with missing records; not started."""
WAITING = "waiting"
"""The state of a trial whose run finished with another number of rounds than the sweep now asks for."""
ROUNDS = "run.rounds"
RESTART_FIX = "Remove the folder and start the sweep again."


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        name: the name of the trial.
        values: texts of the settings by key, with `method` and `run.seed`; a trial without a run folder has those of
            its sweep file, and those that all started trials of its row share.
        status: one of the states above, or the status of the run.
        numbers: numbers by name; empty unless the status is `FINISHED`.
        folder: the run folder; None for a trial from a CSV file.
    """

    name: str
    values: Mapping[str, str]
    status: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Trials:
    """The trials of a table.

    Attributes:
        rows: the trials, in order.
        keys: keys whose values differ between trials; of a sweep, keys of the sweep file.
        target: mean accuracy that the numbers `target/...` refer to; None without such numbers.
        result_keys: keys that change results and differ between configs of one sweep's runs with numbers.
    """

    rows: tuple[TrialRow, ...]
    keys: tuple[str, ...]
    target: float | None = None
    result_keys: tuple[str, ...] = ()


class Planned(NamedTuple):
    """A trial of a sweep: its name, run folder, and the values that the sweep file gives the trial.

    `status` is a state that the sweep knows better than the run folder does; None reads the run folder. `num_rounds` is
    the number of rounds that the sweep asks for; None if unknown.
    """

    name: str
    folder: Path
    values: Mapping[str, Any]
    status: str | None = None
    num_rounds: int | None = None

    def state_of(self, run: RunFacts) -> str:
        """Returns the state of the trial, whose run folder exists.

        A finished run is finished even if the sweep once stopped the trial early: the trial has resumed since.
        """
        if run.status.name != FINISHED:
            return self.status or run.status.name
        if self.num_rounds not in (None, run.num_rounds):
            return WAITING
        return state_of(run) if self.status in (None, FINISHED, STOPPED) else self.status


def state_of(run: RunFacts) -> str:
    """Returns the state of a run that belongs to no sweep: one of the states above, or the status of the run."""
    if run.status.name != FINISHED:
        return run.status.name
    is_whole = not run.damaged_lines and are_whole(run.records, run.num_rounds)
    return FINISHED if is_whole else INCOMPLETE


def of_sweep(planned: Sequence[Planned], target: float | None) -> Trials:
    """Reads the trials of a sweep.

    Raises:
        RunFolderError: a run folder is damaged.
    """
    own = [{METHOD if key == "label" else key: value for key, value in trial.values.items()} for trial in planned]
    own_keys = {key for values in own for key in values}
    rows, settings = [], []
    for trial, values in zip(planned, own, strict=True):
        row, found = _read_trial(trial, target)
        rows.append(row)
        # A key of the sweep file that one trial lacks: the trial keeps an empty cell, also once the run has started.
        settings.append({key: value for key, value in found.items() if key not in own_keys} | values)
    finished = [values for row, values in zip(rows, settings, strict=True) if row.numbers]
    started = [row.status != ABSENT for row in rows]
    found_rows = _with_values(rows, with_shared(settings, own, started))
    return Trials(found_rows, _with_evaluations(varying(own), found_rows, target), target, _checked(finished))


def of_runs(folders: Sequence[Path], target: float | None) -> tuple[Trials, list[str]]:
    """Reads runs, found at or below some folders.

    Returns:
        The trials in order of age, and a line for each folder that is left out.
    """
    found, problems = find_runs(folders)
    runs = []
    for folder in found:
        try:
            run = read_run(folder)
            runs.append((run.created, folder, _row(run, state_of(run), target), run.settings()))
        except DAMAGE as error:
            problems.append(f"{folder}: left out, damaged ({damage(error)}).")
    runs.sort(key=lambda entry: entry[:2])
    settings = [own for _, _, _, own in runs]
    rows = _with_values([row for _, _, row, _ in runs], settings)
    return Trials(rows, _with_evaluations(result_keys(settings), rows, target), target), problems


def read_folders(folders: Sequence[Path], target: float | None) -> tuple[list[Trials], list[str]]:
    """Reads sweep folders, and all other folders together as run folders.

    Args:
        folders: sweep folders, run folders, or folders that hold run folders.
        target: target of all numbers `target/...`; None takes the target of each sweep.

    Raises:
        UserError: a folder does not exist.
        RunFolderError: a sweep folder or one of its run folders is damaged.
    """
    read, others = [], []
    for folder in folders:
        if (folder / DEFINITION).is_file():
            planned, own_target = sweep_definition(folder)
            read.append(of_sweep(planned, own_target if target is None else target))
        else:
            others.append(folder)
    problems: list[str] = []
    if others:
        trials, problems = of_runs(others, target)
        read.append(trials)
    return read, problems


def joined(parts: Sequence[Trials]) -> Trials:
    """Returns the trials of several inputs as one.

    Raises:
        UserError: the inputs have different targets.
    """
    targets = {part.target for part in parts if part.rows}
    if len(targets) > 1:
        raise UserError("The inputs count up to different targets. Give one with --target.")
    rows = tuple(row for part in parts for row in part.rows)
    keys = dict.fromkeys(key for part in parts for key in part.keys)
    if len(parts) > 1:
        # A setting that is the same within each input may differ between inputs. A trial that has not started lacks
        # most settings, which does not make it differ.
        keys |= dict.fromkeys(result_keys([row.values for row in rows if row.status != ABSENT]))
    target = targets.pop() if targets else None
    checked = dict.fromkeys(key for part in parts for key in part.result_keys)
    return Trials(rows, _with_evaluations(list(keys), rows, target), target, tuple(checked))


def sweep_definition(folder: Path) -> tuple[list[Planned], float | None]:
    """Reads sweep.yaml of a sweep folder: its trials and target.

    Raises:
        RunFolderError: a file of the sweep folder is damaged.
    """
    file = folder / DEFINITION
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        stopped = _stopped_early(folder)
        planned = [
            Planned(
                str(name),
                folder / str(name),
                dict(trial["values"]),
                STOPPED if name in stopped else None,
                trial.get("rounds"),
            )
            for name, trial in content["trials"].items()
        ]
        target = content.get("target")
        return planned, None if target is None else float(target)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        fix = "Name the run folders instead, or start the sweep again, which writes the file."
        raise RunFolderError(f"{file}: damaged ({damage(error)}). {fix}") from None


def _stopped_early(folder: Path) -> Mapping[str, Any]:
    file = folder / STOPPED_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _read_trial(trial: Planned, target: float | None) -> tuple[TrialRow, Mapping[str, Any]]:
    """Returns a trial without values, and the config of its run."""
    if not (trial.folder / "run.json").exists():
        return TrialRow(trial.name, {}, trial.status or ABSENT), {}
    try:
        run = read_run(trial.folder)
        row = replace(_row(run, trial.state_of(run), target), name=trial.name)
        # A run that has not finished resumes with the number of rounds that the sweep asks for.
        rounds = {} if trial.num_rounds is None else {ROUNDS: trial.num_rounds}
        return row, run.settings() | rounds
    except DAMAGE as error:
        raise RunFolderError(f"{trial.folder}: damaged ({damage(error)}). {RESTART_FIX}") from None


def _row(run: RunFacts, state: str, target: float | None) -> TrialRow:
    numbers = numbers_of(run.records, target) if state == FINISHED else {}
    return TrialRow(run.name, {}, state, numbers, run.folder)


def _with_values(rows: Sequence[TrialRow], settings: Sequence[Mapping[str, Any]]) -> tuple[TrialRow, ...]:
    return tuple(replace(row, values=values) for row, values in zip(rows, with_texts(settings), strict=True))


def _checked(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    # A restarted sweep may have another label, which changes no results: only the name tells methods apart.
    named = [{**values, METHOD: values.get("method.name", "")} for values in settings]
    return tuple(key for key in result_keys(named) if key not in (METHOD, SEED))


def _with_evaluations(keys: Sequence[str], rows: Sequence[TrialRow], target: float | None) -> tuple[str, ...]:
    """Adds the keys of `EVALUATIONS` that differ between runs; with a target, such runs have different numbers."""
    if target is None:
        return tuple(keys)
    known = {key: {row.values[key] for row in rows if row.numbers and key in row.values} for key in EVALUATIONS}
    return tuple(dict.fromkeys([*keys, *(key for key in EVALUATIONS if len(known[key]) > 1)]))
