"""Finds the run folders of trials whose names have changed, by the configs of the runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedvtc.commands.sweep.trials import Trial
from fedvtc.config import Config, absolute_paths, changed_keys, fingerprint, load, same_place
from fedvtc.config.changes import flat
from fedvtc.errors import ConfigError, RunFolderError
from fedvtc.storage.run_files import config_layer

_Key = tuple[str, int]
_Runs = dict[_Key, list[tuple[str, Config]]]
"""Names and configs of run folders by key; configs of equal keys may differ in keys that may change on resume."""


def with_known_folders(trials: Sequence[Trial]) -> list[Trial]:
    """Gives a trial without a run folder the name of the folder that holds a run of its config.

    A sweep file with another key gives trials other names; their runs in the sweep folder stay theirs. Only folders
    that no trial names, of this user, count. A key that may change on resume may differ, unless the sweep varies it.
    """
    folder = Path(trials[0].config.run.output_dir)
    taken = {trial.name for trial in trials}
    new = [trial for trial in trials if not trial.has_run]
    runs: _Runs = {}
    if new and os.access(folder, os.R_OK | os.X_OK):
        for path in sorted(folder.iterdir()):
            config = _config(path) if path.name not in taken and os.path.exists(path / "run.json") else None
            if config is not None:
                runs.setdefault(_key(config), []).append((path.name, config))
    found = _matched(new, runs, _varied_keys(trials)) if runs else {}
    return [_renamed(trial, found[trial.name]) if trial.name in found else trial for trial in trials]


def _config(path: Path) -> Config | None:
    """Returns the config of a run folder; None for a folder that is damaged or of another user."""
    from fedvtc.learning.methods import config_classes
    from fedvtc.storage.trust import is_owned

    try:
        return absolute_paths(load([config_layer(path)], [], methods=config_classes())) if is_owned(path) else None
    except (ConfigError, RunFolderError):
        return None


def _key(config: Config) -> _Key:
    """Returns fingerprint and rounds: two trials may differ in their rounds only."""
    return fingerprint(config), config.run.rounds


def _varied_keys(trials: Sequence[Trial]) -> set[str]:
    """Returns the keys that distinguish trials: keys of `list`, `grid` and `random`, and keys whose values differ.

    Two trials may have methods with other keys, so only trials that have a key are compared. Labels do not count: a
    label names the results and changes none.
    """
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in flat(trial.config).items():
            values.setdefault(key, set()).add(repr(value))
    differing = {key for key, seen in values.items() if len(seen) > 1}
    return differing.union(*(trial.values for trial in trials)) - {"method.label"}


def _matched(
    new: Sequence[Trial], runs: Mapping[_Key, Sequence[tuple[str, Config]]], varied: set[str]
) -> dict[str, str]:
    """Returns the name of a folder by the name of its trial; the pairs with the fewest differing keys come first."""
    pairs = []
    for place, trial in enumerate(new):
        config = absolute_paths(trial.config)
        for name, before in runs.get(_key(config), ()):
            changed = changed_keys(before, same_place(before, config))
            if varied.isdisjoint(changed):
                pairs.append((len(changed), place, name))
    found: dict[str, str] = {}
    for _, place, name in sorted(pairs):
        if new[place].name not in found and name not in found.values():
            found[new[place].name] = name
    return found


def _renamed(trial: Trial, name: str) -> Trial:
    config = replace(trial.config, run=replace(trial.config.run, name=name))
    own = f"run.name={trial.name}"
    arguments = tuple(f"run.name={name}" if word == own else word for word in trial.arguments)
    return replace(trial, name=name, config=config, arguments=arguments)
