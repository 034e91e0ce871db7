"""Checks of a sweep file across its keys: conflicting settings, equal trials, trials in different folders."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedvtc.commands.sweep.sweep_file import AshaKeys
from fedvtc.commands.sweep.trials import Trial
from fedvtc.commands.sweep.variants import Setting, Variant
from fedvtc.config.layers import read_file
from fedvtc.config.problems import COMMAND_LINE, Problem, show
from fedvtc.config.shipped import located
from fedvtc.learning.metrics import VALIDATION
from fedvtc.reporting.comparison.trials import DEFINITION, STOPPED_FILE
from fedvtc.reporting.comparison.values import FILES

OWN_KEYS = ("run.name", "run.resume")
"""Keys that a sweep sets itself."""
SHARED_KEYS = ("run.output_dir", "cluster")
"""Keys and sections that must be the same in all trials."""
SWEEP_FILES = ("logs", "tune", DEFINITION, STOPPED_FILE, "results.csv", "results.md")
"""Files and folders of a sweep folder, which no trial can be called."""
DIFFERENT_VALUES = "Give each trial different values."
ONE_OF_TWO = "Remove one of the two."


def check_settings(
    common: Sequence[Setting], variants: Sequence[Variant], file: Path, overrides: Sequence[str]
) -> list[Problem]:
    """Checks the settings of a sweep file before any config is loaded.

    Args:
        common: the settings of all trials, including config files.
        variants: the settings of each trial.
        file: the sweep file.
        overrides: `key=value` of the command line, for all trials.
    """
    varied = [setting for variant in variants for setting in variant]
    return [
        *_file_problems([*common, *varied], file),
        *_own_key_problems([*common, *varied], overrides),
        *_override_problems(varied, overrides),
        *dict.fromkeys(problem for variant in variants for problem in _conflicts([*common, *variant])),
    ]


def check_trials(trials: Sequence[Trial], asha: AshaKeys | None, file: Path) -> list[Problem]:
    """Checks that trials differ, share one output folder and cluster, and can be stopped early if asked for.

    Args:
        trials: all trials of the sweep.
        asha: early stopping; None without.
        file: the sweep file.
    """
    different = list(_equal_names(trials, file)) or list(_equal_configs(trials, file))
    different += _names_of_files(trials, file)
    return [*different, *_unshared(trials, file), *(_never_stopped(trials, asha, file) if asha is not None else ())]


def paths_of(given: Sequence[Setting], file: Path) -> list[str]:
    """Returns the paths of the config files that settings name: relative to the sweep file, or shipped configs."""
    names = [setting.value for setting in given if setting.key == FILES]
    flat = [name for value in names for name in ([value] if isinstance(value, str) else value)]
    return [str(located(name, file.parent)) for name in flat]


def overridden_key(override: str) -> str:
    """Returns the key of `key=value`."""
    return override.partition("=")[0].strip()


def _file_problems(given: Sequence[Setting], file: Path) -> list[Problem]:
    """Reads every config file that settings name, once, and returns the problems."""
    problems: list[Problem] = []
    seen = set()
    for setting in given:
        if setting.key != FILES:
            continue
        if not all(isinstance(name, str) for name in _as_list(setting.value)):
            what = f"expected a path or a list of paths, not {show(setting.value)}"
            problems.append(Problem(FILES, what, setting.where, "Paths are relative to the sweep file."))
            continue
        for path in paths_of([setting], file):
            if path not in seen:
                seen.add(path)
                read_file(Path(path), setting.where, problems)
    return problems


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _own_key_problems(given: Sequence[Setting], overrides: Sequence[str]) -> Iterator[Problem]:
    written = [(setting.key, setting.where) for setting in given]
    written += [(overridden_key(override), COMMAND_LINE) for override in overrides]
    for key, where in dict.fromkeys(written):
        if key in OWN_KEYS:
            yield Problem(key, "the sweep sets this key for each trial", where, f"Remove {key}.")


def _override_problems(varied: Sequence[Setting], overrides: Sequence[str]) -> Iterator[Problem]:
    """Yields overrides of varied keys: the name of a trial must not contain a value that its config lacks."""
    written = dict.fromkeys((setting.key, setting.where) for setting in varied if setting.key != FILES)
    for override in dict.fromkeys(map(overridden_key, overrides)):
        for key, where in written:
            if _contains(key, override) or _contains(override, key):
                what = f"set on the command line for all trials, but the sweep file varies {key}"
                yield Problem(override, what, where, ONE_OF_TWO)
                break


def _conflicts(given: Sequence[Setting]) -> Iterator[Problem]:
    """Yields keys that have a value while a key below them is set too, so that one of the two would be ignored."""
    for setting in given:
        for other in given:
            if other.key != setting.key and _contains(setting.key, other.key) and setting.value != {}:
                what = f"is {show(setting.value)}, but {other.key} is set too"
                yield Problem(setting.key, what, setting.where, ONE_OF_TWO)


def _contains(key: str, other: str) -> bool:
    """True if the keys are equal, or `key` is a section that contains `other`."""
    return f"{other}.".startswith(f"{key}.")


def _equal_names(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    for name, count in Counter(trial.name for trial in trials).items():
        if count > 1:
            yield Problem(str(file), f"{count} trials have the same name, {name}", fix=DIFFERENT_VALUES)


def _names_of_files(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    for trial in trials:
        if trial.name in SWEEP_FILES:
            what = f"a trial cannot be called {trial.name}, the name of a file or folder of the sweep"
            yield Problem(str(file), what, fix="Give the trial another label or value.")


def _equal_configs(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    """Yields trials with equal configs, because the table would count them as two seeds."""
    first: dict[str, str] = {}
    for trial in trials:
        config = repr(replace(trial.config, run=replace(trial.config.run, name=None)))
        other = first.setdefault(config, trial.name)
        if other != trial.name:
            yield Problem(str(file), f"trials {other} and {trial.name} have the same config", fix=DIFFERENT_VALUES)


def _unshared(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    def shared(trial: Trial) -> tuple[object, ...]:
        return trial.config.run.output_dir, trial.config.cluster

    for trial in trials[1:]:
        for key, first, other in zip(SHARED_KEYS, shared(trials[0]), shared(trial), strict=True):
            if first != other:
                fix = f"Set {key} under `set` or on the command line."
                yield Problem(key, f"differs between trials {trials[0].name} and {trial.name}", str(file), fix)
                return


def _never_stopped(trials: Sequence[Trial], asha: AshaKeys, file: Path) -> Iterator[Problem]:
    """Yields a problem if a trial lacks the metric, or if no trial is evaluated early enough to be stopped."""
    for trial in trials:
        if asha.metric in VALIDATION and not trial.config.evaluate.validation_share:
            fix = "Set evaluate.validation_share, or compare by a metric of the test set."
            yield Problem("asha.metric", f"{asha.metric} is not measured in trial {trial.name}", str(file), fix)
            break
    configs = [trial.config for trial in trials]
    firsts = [math.ceil(asha.grace_rounds / config.evaluate.every) * config.evaluate.every for config in configs]
    if all(first >= config.run.rounds for first, config in zip(firsts, configs, strict=True)):
        what = f"no trial is evaluated from round {asha.grace_rounds} to the round before its last"
        yield Problem("asha", what, str(file), "Set asha.grace_rounds or evaluate.every lower, or remove asha.")
