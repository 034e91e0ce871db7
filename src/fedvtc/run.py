"""A run from its config, or from its folder on."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.attempt import PARTITION, attempt, checkpoint_store, has_begun
from fedvtc.checkpoint import Manifest
from fedvtc.config import check_resumable, check_submitted, fingerprint, load, same_place, to_dict
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ConfigError, RunFolderError, UserError
from fedvtc.federation import Population
from fedvtc.methods import config_classes
from fedvtc.naming import default_name
from fedvtc.tracking import Tracker
from fedvtc.tracking.choosing import foreign_trackers
from fedvtc.tracking.console import PlainConsole, make_console_tracker
from fedvtc.tracking.files import count_recorded
from fedvtc.tracking.run_folder import RUN_ID_VARIABLE, RunFolder


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`; None where the run had ended before.
    """

    folder: Path
    record: Mapping[str, Any] | None


def run_federation(config: Config, *, plain: bool = False, trackers: Sequence[Tracker] = ()) -> RunSummary:
    """Runs a federation from its config to its run folder, or resumes it where `run.resume` says so.

    Args:
        config: whole and checked.
        plain: one line per round instead of a live table.
        trackers: hear of the run besides those of its own.

    Raises:
        UserError: the data, the cluster or the run folder are not as the config needs them.
        FedvtcError: the run could not go on.
    """
    check_submitted(config)
    path = Path(config.run.output_dir, config.run.name or default_name(config))
    if config.run.resume == "auto" and (path / "run.json").exists():
        folder = RunFolder.open(path)
        return _resume(folder, lambda before: same_place(before, config), plain, trackers)
    population = Population.of(config)
    folder = RunFolder.create(config.run.output_dir, path.name, to_dict(config))
    with folder.lock(), _discarded_if_it_cannot_begin(folder):
        console = make_console_tracker(plain)
        submitted_as = os.environ.get(RUN_ID_VARIABLE) or folder.id
        if folder.id != submitted_as:
            console.note(f"{folder.path}: there is no folder of run {submitted_as}; a new run begins, {folder.id}")
        return RunSummary(folder.path, attempt(config, population, folder, None, console, trackers))


def resume_federation(path: Path, overrides: Sequence[str] = (), *, plain: bool = False) -> RunSummary:
    """Goes on with a run from its newest whole checkpoint, or from the beginning where there is none.

    Args:
        path: the run folder.
        overrides: `key=value` of keys that may change.
        plain: one line per round instead of a live table.

    Raises:
        UserError: the folder holds no run, a key may not change, or another process writes the run.
        FedvtcError: the run could not go on.
    """
    folder = RunFolder.open(path)

    def change(_: Config) -> Config:
        config = _config_of(folder, overrides)
        if not any(text.startswith("tracking.trackers=") for text in overrides):
            _check_trackers(config, folder)
        return config

    return _resume(folder, change, plain)


def _resume(
    folder: RunFolder, change: Callable[[Config], Config], plain: bool, trackers: Sequence[Tracker] = ()
) -> RunSummary:
    """Goes on with a run whose config is changed as `change` says."""
    with folder.lock():
        before = _config_of(folder)
        after = change(before)
        check_resumable(before, after)
        console = make_console_tracker(plain)
        if folder.status == "finished" and after.run.rounds == before.run.rounds:
            console.note(f"{folder.path}: finished after {before.run.rounds} rounds, nothing to resume.")
            return RunSummary(folder.path, None)
        start = _start(folder, before, after, console)
        num_done = start.round if start else 0
        partition = folder.path / PARTITION
        population = Population.of(after, partition if partition.exists() else None)
        try:
            folder.write_config(to_dict(after))
            folder.begin_attempt(num_done)
        except OSError as error:
            raise RunFolderError(
                f"{folder.path}: cannot be written ({error.strerror}). Make room, or mend its rights."
            ) from None
        what = f"resuming after round {num_done} of {after.run.rounds}" if start else "no checkpoint, starting over"
        console.note(f"{folder.path}: {what}")
        return RunSummary(folder.path, attempt(after, population, folder, start, console, trackers))


def _start(folder: RunFolder, before: Config, after: Config, console: PlainConsole) -> Manifest | None:
    """The newest whole checkpoint of a run, or None where there is none at all."""
    store, former = checkpoint_store(after, folder), checkpoint_store(before, folder)
    damaged: list[str] = []
    start = store.newest_whole(damaged.append)
    for line in damaged:
        console.note(f"{line}; passed over")
    num_recorded = count_recorded(folder.path, after.population.num_clients)
    if start is not None and start.round > num_recorded:
        what = f"metrics.jsonl or clients.csv is whole up to round {num_recorded} only"
        earlier = store.newest_whole(max_round=num_recorded)
        rest = "later checkpoints are passed over" if earlier else "records up to the checkpoint are lost"
        console.note(f"{folder.path}: {what}; {rest}")
        start = earlier or start
    if start is None and damaged:
        fix = f"Mend one of them, or remove {store.location} to start over."
        raise CheckpointError(f"{folder.path}: no checkpoint is whole. {fix}")
    if start is None and store.location != former.location and former.manifests():
        fix = f"Move what is in {former.location} there, or leave it out."
        raise CheckpointError(f"checkpoint.dir: {store.location} holds no checkpoint of the run. {fix}")
    if start is not None:
        _check_belongs(start, folder, before)
        if start.round > after.run.rounds:
            what = f"the run has done {start.round} rounds, not {after.run.rounds}"
            raise ConfigError([f"run.rounds: {what}. Give at least {start.round}."])
    return start


def _check_belongs(start: Manifest, folder: RunFolder, config: Config) -> None:
    if start.run_id != folder.id:
        raise CheckpointError(f"{folder.path}: checkpoint {start.folder} is that of run {start.run_id}. Remove it.")
    if start.fingerprint != fingerprint(config):
        raise CheckpointError(
            f"{folder.path}: config.yaml is not the config that checkpoint {start.folder} was written with. "
            "Put it back as it was."
        )


def _check_trackers(config: Config, folder: RunFolder) -> None:
    """A folder may come from a stranger: what it names is not imported, as nothing in it is run."""
    if names := foreign_trackers(config):
        what = f"{names[0]} is named by {folder.path}/config.yaml only, and no code is imported on its word"
        raise ConfigError([f"tracking.trackers: {what}. Give tracking.trackers=[...] with it, or without it."])


def _config_of(folder: RunFolder, overrides: Sequence[str] = ()) -> Config:
    return load([folder.config_layer()], overrides, methods=config_classes())


@contextmanager
def _discarded_if_it_cannot_begin(folder: RunFolder) -> Iterator[None]:
    """What the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        if not has_begun(folder):
            folder.discard()
        raise
