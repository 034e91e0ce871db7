"""Groups of trials that differ in their seed only, as rows and columns of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedvtc.config.problems import did_you_mean, nearest
from fedvtc.errors import UserError
from fedvtc.reporting.comparison.trials import ABSENT, FINISHED, STOPPED, TrialRow, Trials
from fedvtc.reporting.comparison.values import EVALUATIONS, FILES
from fedvtc.reporting.run_facts import METHOD, SEED

Texts = tuple[str, ...]
STATUS = "status"
"""Selects trials by their status."""


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed only."""

    trials: tuple[TrialRow, ...] = ()

    @property
    def num_finished(self) -> int:
        """Finished trials whose numbers count."""
        return sum(trial.status == FINISHED for trial in self.trials)

    @property
    def num_stopped(self) -> int:
        """Trials that were stopped early."""
        return sum(trial.status == STOPPED for trial in self.trials)

    def numbers(self, name: str) -> dict[str, float]:
        """Returns the number of each trial that has the number, by seed."""
        found = [trial for trial in self.trials if name in trial.numbers]
        return {trial.values.get(SEED, ""): trial.numbers[name] for trial in found}


@dataclass(frozen=True)
class Comparison:
    """Groups by row and column.

    Attributes:
        row_keys: the settings that tell rows apart.
        column_keys: the settings that tell columns apart.
        rows: the values of the row keys, one entry a row.
        columns: the values of the column keys; one empty entry without column keys.
        groups: the groups by row and column; a missing pair has no trials.
        target: mean accuracy that the numbers `target/...` refer to.
    """

    row_keys: Texts
    column_keys: Texts
    rows: tuple[Texts, ...]
    columns: tuple[Texts, ...]
    groups: Mapping[tuple[Texts, Texts], Group]
    target: float | None

    def group(self, row: Texts, column: Texts) -> Group:
        """Returns the group of a row and a column."""
        return self.groups.get((row, column), Group())


def selected(trials: Trials, where: Mapping[str, Sequence[str]]) -> Trials:
    """Returns the trials with the given values.

    Args:
        trials: the trials.
        where: permitted texts of values by key; the key `status` selects by the status of a trial.

    Raises:
        UserError: no trial has the key or one of the values.
    """
    for key, texts in where.items():
        if key != STATUS:
            _check_known(trials, "--where", [key])
        known = dict.fromkeys(text for text in (_text(row, key) for row in trials.rows) if text is not None)
        for text in texts:
            if text not in known:
                raise UserError(f"--where {key}={text}: no run has this value. {did_you_mean(text, known)}")
    rows = tuple(row for row in trials.rows if all(_text(row, key) in texts for key, texts in where.items()))
    keys = tuple(key for key in trials.keys if len({row.values.get(key) for row in rows}) > 1)
    return Trials(rows, keys, trials.target, trials.result_keys)


def compared(trials: Trials, rows: Sequence[str] | None = None, columns: Sequence[str] = ()) -> Comparison:
    """Groups trials into rows and columns, in the order of the trials.

    Args:
        trials: the trials.
        rows: keys of the rows; None takes every key that differs, except the seed and those of the columns.
        columns: keys of the columns.

    Raises:
        UserError: a key is unknown, or trials of one group differ in more than their seed.
    """
    own_keys = [key for key in trials.keys if key != SEED]
    # The files of a sweep name the method.
    default = [key for key in own_keys if key not in columns and not (key == METHOD and FILES in own_keys)]
    row_keys, column_keys = tuple(default if rows is None else rows), tuple(columns)
    _check_known(trials, "--rows", row_keys)
    _check_known(trials, "--columns", column_keys)
    members: dict[tuple[Texts, Texts], list[TrialRow]] = {}
    for trial in trials.rows:
        # A trial that has not started has the settings of its sweep file only.
        if trial.status == ABSENT and rows is not None and not {*row_keys, *column_keys} <= trial.values.keys():
            continue
        cell = tuple(tuple(trial.values.get(key, "") for key in keys) for keys in (row_keys, column_keys))
        members.setdefault((cell[0], cell[1]), []).append(trial)
    if not members:
        raise UserError("No runs to show. Name a sweep folder, run folders, or a CSV file of `fedvtc table --long`.")
    # Evaluations change no results; `evaluations.py` checks numbers up to the target.
    checked = [key for key in own_keys if key not in (*row_keys, *EVALUATIONS)]
    for (row, column), group in members.items():
        name = " ".join([*row, *column])
        _check_equal(name, group, checked)
        with_numbers = [trial for trial in group if trial.numbers]
        _check_equal(name, with_numbers, [key for key in trials.result_keys if key not in row_keys])
        _check_seeds(name, group)
    return Comparison(
        row_keys,
        column_keys,
        tuple(dict.fromkeys(row for row, _ in members)),
        tuple(dict.fromkeys(column for _, column in members)),
        {cell: Group(tuple(group)) for cell, group in members.items()},
        trials.target,
    )


def _text(trial: TrialRow, key: str) -> str | None:
    return trial.status if key == STATUS else trial.values.get(key)


def _check_known(trials: Trials, option: str, keys: Sequence[str]) -> None:
    known = dict.fromkeys([*trials.keys, *(key for row in trials.rows for key in row.values)])
    for key in keys:
        if key not in known:
            # A list of every config key would be longer than a screen.
            fix = did_you_mean(key, known if nearest(key, known) else trials.keys)
            raise UserError(f"{option} {key}: no run has this setting. {fix}")


def _check_equal(name: str, group: Sequence[TrialRow], keys: Sequence[str]) -> None:
    """Raises a UserError if trials of a group have different values of a key."""
    for key in keys:
        texts = list(dict.fromkeys(trial.values.get(key, "") for trial in group))
        if len(texts) > 1:
            some = ", ".join(text or "(none)" for text in texts[:3])
            fix = f"Add {key} to --rows or --columns, or choose runs with --where {key}={texts[0]}."
            raise UserError(f"{name or 'the table'}: one row would mix runs of different {key} ({some}). {fix}")


def _check_seeds(name: str, group: Sequence[TrialRow]) -> None:
    """Raises a UserError if two trials of a group have numbers and the same seed."""
    first: dict[str, TrialRow] = {}
    for trial in group:
        seed = trial.values.get(SEED, "")
        if seed in first and trial.numbers:
            fix = "Name one of the two runs, or tell them apart with --rows."
            two = f"{first[seed].folder or first[seed].name} and {trial.folder or trial.name}"
            raise UserError(f"{name or 'the table'}: {two} have the same seed, {seed}. {fix}")
        if trial.numbers:
            first[seed] = trial
