"""What is wrong with a sweep file beyond its form: keys that do not go together, trials that are not told apart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedvtc.commands.sweep.variants import FILES, Setting, Variant
from fedvtc.config.layers import read_file
from fedvtc.config.problems import COMMAND_LINE, Problem, show

if TYPE_CHECKING:
    from fedvtc.commands.sweep.trials import Trial

OWN_KEYS = ("run.name", "run.resume")
"""Keys that a sweep sets itself."""
SHARED_KEYS = ("run.output_dir", "cluster")
"""What all trials have alike."""


def check_settings(
    common: Sequence[Setting], variants: Sequence[Variant], file: Path, overrides: Sequence[str]
) -> list[Problem]:
    """What is wrong with what a sweep file sets, before any config is made of it.

    Args:
        common: what all trials are to have, config files among it.
        variants: what each has of its own.
        file: the sweep file.
        overrides: `key=value` for all trials.
    """
    varied = [setting for variant in variants for setting in variant]
    return [
        *_files([*common, *varied], file),
        *_own_keys([*common, *varied], overrides),
        *_overridden(varied, overrides),
        *dict.fromkeys(problem for variant in variants for problem in _clashes([*common, *variant])),
    ]


def check_trials(trials: Sequence[Trial], file: Path) -> list[Problem]:
    """What keeps trials from being told apart, or from having one place.

    Args:
        trials: all of them.
        file: the sweep file.
    """
    return [*(list(_alike(trials, file)) or _equal(trials, file)), *_shared(trials, file)]


def paths_of(given: Sequence[Setting], file: Path) -> list[str]:
    """The paths that settings name, relative to where the command was given, as the sweep file's own is."""
    names = [setting.value for setting in given if setting.key == FILES]
    flat = [name for value in names for name in ([value] if isinstance(value, str) else value)]
    return [os.path.normpath(file.parent / name) for name in flat]


def overridden_key(override: str) -> str:
    """The key of `key=value`."""
    return override.partition("=")[0].strip()


def _files(given: Sequence[Setting], file: Path) -> list[Problem]:
    """What is wrong with each file that settings name, once."""
    problems: list[Problem] = []
    seen = set()
    for setting in given:
        if setting.key != FILES:
            continue
        if not all(isinstance(name, str) for name in _listed(setting.value)):
            what, fix = (
                f"expected a path or a list of paths, not {show(setting.value)}",
                "They are relative to this file.",
            )
            problems.append(Problem(FILES, what, setting.where, fix))
            continue
        for path in paths_of([setting], file):
            if path not in seen:
                seen.add(path)
                read_file(Path(path), setting.where, problems)
    return problems


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _own_keys(given: Sequence[Setting], overrides: Sequence[str]) -> Iterator[Problem]:
    written = [(setting.key, setting.where) for setting in given]
    written += [(overridden_key(override), COMMAND_LINE) for override in overrides]
    for key, where in dict.fromkeys(written):
        if key in OWN_KEYS:
            yield Problem(key, "a sweep sets it for each of its trials", where, "Take it out.")


def _overridden(given: Sequence[Setting], overrides: Sequence[str]) -> Iterator[Problem]:
    """A trial must not be called by a value that it does not have."""
    written = dict.fromkeys((setting.key, setting.where) for setting in given if setting.key != FILES)
    for override in dict.fromkeys(map(overridden_key, overrides)):
        for key, where in written:
            if _is_around(key, override) or _is_around(override, key):
                what = f"the command line gives it to all trials, and the sweep gives {key} to some"
                yield Problem(override, what, where, "Leave one of them out.")
                break


def _clashes(given: Sequence[Setting]) -> Iterator[Problem]:
    """A value, and keys below it, of which one would go unheard."""
    for setting in given:
        for other in given:
            if other.key != setting.key and _is_around(setting.key, other.key) and setting.value != {}:
                what = f"is {show(setting.value)} here, and {other.key} is set too"
                yield Problem(setting.key, what, setting.where, "Leave one of them out.")


def _is_around(key: str, other: str) -> bool:
    """Whether the key is the other one, or a section with it."""
    return f"{other}.".startswith(f"{key}.")


def _alike(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    for name, count in Counter(trial.name for trial in trials).items():
        if count > 1:
            fix = "Give each its own values."
            yield Problem(str(file), f"{count} trials are alike or have values that read alike ({name})", fix=fix)


def _equal(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    """Two runs of one config would count as two seeds."""
    first: dict[str, str] = {}
    for trial in trials:
        config = repr(replace(trial.config, run=replace(trial.config.run, name=None)))
        other = first.setdefault(config, trial.name)
        if other != trial.name:
            what = f"trials {other} and {trial.name} have the same config"
            yield Problem(str(file), what, fix="Give each its own values.")


def _shared(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    def of(trial: Trial) -> tuple[object, ...]:
        return trial.config.run.output_dir, trial.config.cluster

    for trial in trials[1:]:
        for key, first, other in zip(SHARED_KEYS, of(trials[0]), of(trial), strict=True):
            if first != other:
                fix = "Set it under set, or on the command line."
                yield Problem(key, f"differs between trials {trials[0].name} and {trial.name}", str(file), fix)
                return
