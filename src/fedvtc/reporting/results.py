"""Reads whole runs for figures: records, rows of clients, settings, and a group for runs that differ in the seed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedvtc.errors import RunFolderError, count_of
from fedvtc.reporting.comparison.trials import DEFINITION, FINISHED, Planned, state_of, sweep_definition
from fedvtc.reporting.comparison.values import result_keys, with_texts
from fedvtc.reporting.run_facts import DAMAGE, METHOD, SEED, RunFacts, check_records, damage, read_run
from fedvtc.reporting.run_folders import find_runs
from fedvtc.reporting.run_numbers import ACCURACY, numbers_so_far
from fedvtc.reporting.seeds import badness, mean_and_std
from fedvtc.storage.records import client_lines

TEXT_COLUMNS = ("phase", "backbone")


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run, as read from its folder.

    Attributes:
        facts: config, status and records.
        numbers: the newest value of each metric, sums of bytes, seconds and operations, by name.
        rows: rows of the newest evaluation of every client, numbers as floats, None for a cell without a finite one.
        rows_before: rows of the evaluation of the last round, if `rows` are those after the method's last step.
        group: name of the group of runs that differ in their seed only.
        state: state of the run in `fedvtc table`: one of the states of trials, or the true status.
    """

    facts: RunFacts
    numbers: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    rows_before: Sequence[Mapping[str, Any]] = ()
    group: str = ""
    state: str = FINISHED

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.facts.folder

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The records of rounds, in order, then the final record if there is one."""
        return sorted(self.facts.records, key=lambda record: (record["phase"] == "final", record["round"]))

    @property
    def seed(self) -> str:
        """The seed as a text."""
        return "?" if self.facts.seed is None else str(self.facts.seed)

    @property
    def name(self) -> str:
        """Group and seed, which name the run in a list of choices."""
        return f"{self.group}, seed {self.seed}"

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in class order; empty for runs of version 0.1.0."""
        data = self.facts.description.get("data")
        classes = data.get("classes") if isinstance(data, Mapping) else None
        return [str(name) for name in classes] if isinstance(classes, Mapping) else []


def read_results(folders: Sequence[Path]) -> tuple[list[RunResult], list[str]]:
    """Reads all runs at or below some folders.

    Returns:
        The runs by group, the group of the highest mean accuracy first; within a group, finished runs first, then by
        seed. And one line per run or sweep.yaml that cannot be read.

    Raises:
        UserError: if a folder does not exist.
    """
    found, problems = find_runs(folders)
    planned, faults = _planned(folders)
    runs = []
    for folder in found:
        try:
            runs.append(_read(folder, planned.get(folder.resolve())))
        except DAMAGE as error:
            problems.append(f"{folder}: left out, damaged ({damage(error)}).")
    groups = _groups(runs)
    runs = [replace(run, group=group) for run, group in zip(runs, groups, strict=True)]
    runs.sort(key=lambda run: (run.group, run.state != FINISHED, len(run.seed), run.seed, str(run.folder)))
    ranks = {group: _rank(members) for group, members in groups_of(compared(runs)).items()}
    runs.sort(key=lambda run: ranks.get(run.group, math.inf))
    return runs, problems + faults


def compared(runs: Sequence[RunResult]) -> list[RunResult]:
    """Returns the runs that enter curves, means and differences: the finished runs, or all runs if none has finished.

    Unfinished runs stay out, because a run that failed in its first round would change the mean of its group.
    """
    return [run for run in runs if run.state == FINISHED] or list(runs)


def unfinished(runs: Sequence[RunResult]) -> dict[str, str]:
    """Returns number and states of the unfinished runs by group, such as `2 of 3 runs (1 failed, 1 running)`."""
    found = {}
    for group, members in groups_of(runs).items():
        states = Counter(run.state for run in members if run.state != FINISHED)
        if states:
            reasons = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
            found[group] = f"{states.total()} of {count_of(len(members), 'run')} ({reasons})"
    return found


def groups_of(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Returns the runs of each group, in the order of the runs."""
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def firsts_first(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Returns the first run of each group, and all others, which are the first to be left out of a large figure."""
    firsts = [members[0] for members in groups_of(runs).values()]
    return firsts, [run for run in runs if run not in firsts]


def number(value: Any) -> float | None:
    """Returns a value of a record as a float; None if the value is no finite number."""
    return (
        float(value)
        if isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool)
        else None
    )


def _read(folder: Path, trial: Planned | None) -> RunResult:
    facts = read_run(folder)
    check_records(facts)
    state = trial.state_of(facts) if trial else state_of(facts)
    return RunResult(facts, numbers_so_far(facts.records), *_newest_rows(folder), state=state)


def _planned(folders: Sequence[Path]) -> tuple[dict[Path, Planned], list[str]]:
    """Returns the trials of sweep folders by resolved run folder, and a line per damaged sweep.

    A sweep knows states of its trials that their run folders do not.
    """
    planned: dict[Path, Planned] = {}
    faults = []
    for folder in folders:
        if (folder / DEFINITION).is_file():
            try:
                trials, _ = sweep_definition(folder)
            except RunFolderError as error:
                faults.append(str(error))
            else:
                planned |= {trial.folder.resolve(): trial for trial in trials}
    return planned, faults


def _rank(members: Sequence[RunResult]) -> float:
    values = [run.numbers[ACCURACY] for run in members if ACCURACY in run.numbers]
    return badness(mean, higher_is_better=True) if (mean := mean_and_std(values)[0]) is not None else math.inf


def _newest_rows(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of the newest evaluation, and those of the last round if the newest follows the last step."""
    lines = [line.values for line in client_lines(folder) if line.values is not None]
    newest = max(((row["phase"] == "final", row["round"]) for row in lines), default=(False, 0))
    found = []
    for at in (newest, (False, newest[1])):
        rows = [row for row in lines if (row["phase"] == "final", row["round"]) == at]
        found.append([{key: v if key in TEXT_COLUMNS else _cell(v) for key, v in row.items()} for row in rows])
    return found[0], found[1] if newest[0] else []


def _cell(value: Any) -> float | None:
    try:
        return number(float(value))
    except ValueError:
        return None


def _groups(runs: Sequence[RunResult]) -> list[str]:
    """Returns the group of each run: the method's label, and the settings that set runs of this label apart.

    Data sets and partitions that differ between methods are part of the names too, because such runs are no comparison.
    """
    everything = [run.facts.settings() for run in runs]
    of_data = [key for key in result_keys(everything) if key.startswith(("data.", "partition."))]
    # Runs of an earlier version lack keys; the absence sets nothing apart.
    of_data = [key for key in of_data if all(key in settings for settings in everything)]
    by_method: dict[str, list[RunResult]] = {}
    for run in runs:
        by_method.setdefault(run.facts.method, []).append(run)
    names: dict[int, str] = {}
    for method, siblings in by_method.items():
        settings = [run.facts.settings() for run in siblings]
        keys = [key for key in dict.fromkeys([*of_data, *result_keys(settings)]) if key not in (METHOD, SEED)]
        for run, texts in zip(siblings, with_texts(settings), strict=True):
            names[id(run)] = ", ".join(
                [method, *(f"{key.removesuffix('.name').rpartition('.')[2]} {texts.get(key, '-')}" for key in keys)]
            )
    return [names[id(run)] for run in runs]
