"""Finds the run folders of trials whose names have changed, by the fingerprint of their configs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedvtc.commands.sweep.trials import Trial
from fedvtc.config import Config, absolute_paths, fingerprint, load
from fedvtc.errors import ConfigError, RunFolderError
from fedvtc.storage.run_files import config_layer


def with_known_folders(trials: Sequence[Trial]) -> list[Trial]:
    """Gives a trial without a run folder the name of the folder that holds a run of its config.

    A sweep file with another key gives trials other names; their runs in the sweep folder stay theirs. Only folders
    that no trial names, of this user, count.
    """
    folder = Path(trials[0].config.run.output_dir)
    taken = {trial.name for trial in trials}
    new = {trial.name for trial in trials if not (trial.path / "run.json").exists()}
    free: dict[tuple[str, int], str] = {}
    if new and folder.is_dir():
        for path in sorted(folder.iterdir()):
            known = _known(path) if path.name not in taken and (path / "run.json").exists() else None
            if known is not None:
                free.setdefault(known, path.name)
    found = []
    for trial in trials:
        name = free.pop(_key(trial.config), None) if trial.name in new and free else None
        found.append(trial if name is None else _renamed(trial, name))
    return found


def _known(path: Path) -> tuple[str, int] | None:
    """Returns the key of a run folder's config; None for a folder that is damaged or of another user."""
    from fedvtc.learning.methods import config_classes
    from fedvtc.storage.trust import is_owned

    try:
        return _key(load([config_layer(path)], [], methods=config_classes())) if is_owned(path) else None
    except (ConfigError, RunFolderError):
        return None


def _key(config: Config) -> tuple[str, int]:
    """Returns fingerprint and rounds: two trials may differ in their rounds only."""
    return fingerprint(absolute_paths(config)), config.run.rounds


def _renamed(trial: Trial, name: str) -> Trial:
    config = replace(trial.config, run=replace(trial.config.run, name=name))
    own = f"run.name={trial.name}"
    arguments = tuple(f"run.name={name}" if word == own else word for word in trial.arguments)
    return replace(trial, name=name, config=config, arguments=arguments)
