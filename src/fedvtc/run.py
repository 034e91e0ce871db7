"""A run from its config, or from its folder on."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fedvtc.attempt import PARTITION, attempt, has_begun
from fedvtc.config import check_resumable, check_submitted, load, same_place, to_dict
from fedvtc.config.schema import Config
from fedvtc.errors import RunExistsError, RunFolderError, UserError
from fedvtc.federation import Population
from fedvtc.incidents import Incidents
from fedvtc.methods import config_classes
from fedvtc.naming import default_name
from fedvtc.resuming import NOTHING_FOREIGN, check_trusted, starting_point
from fedvtc.runtime.device import gpu_names
from fedvtc.tracking import Tracker
from fedvtc.tracking.console import make_console_tracker
from fedvtc.tracking.run_files import config_layer
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
    name = config.run.name or default_name(config)
    path = Path(config.run.output_dir, name)
    # Not Path.exists, which raises for a name that is too long, or where it may not look.
    if config.run.resume == "auto" and os.path.exists(path / "run.json"):
        folder = RunFolder.open(path)
        return _resume(folder, lambda before: same_place(before, config), plain, trackers)
    population = Population.of(config)
    folder = _new_folder(config, name)
    with folder.lock(), _discarded_if_it_cannot_begin(folder):
        console = make_console_tracker(plain)
        submitted_as = os.environ.get(RUN_ID_VARIABLE) or folder.id
        if folder.id != submitted_as:
            console.note(f"{folder.path}: there is no folder of run {submitted_as}; a new run begins, {folder.id}")
        incidents = Incidents(console.note)
        return RunSummary(folder.path, attempt(config, population, folder, None, console, incidents, trackers))


def _new_folder(config: Config, name: str) -> RunFolder:
    """A name that the user did not give gets a number where a run that began in the same second has it."""
    gpus = [] if config.placement.accelerator == "cpu" else gpu_names()
    numbered = (f"{name}-{number}" for number in count(2))
    chosen = name
    while True:
        try:
            return RunFolder.create(config.run.output_dir, chosen, to_dict(config), gpus)
        except RunExistsError:
            if config.run.name is not None:
                raise
            chosen = next(numbered)


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

    def check(after: Config) -> None:
        check_trusted(after, _config_of(folder, [*NOTHING_FOREIGN, *overrides]), folder)

    return _resume(folder, lambda _: _config_of(folder, overrides), plain, check=check)


def _resume(
    folder: RunFolder,
    change: Callable[[Config], Config],
    plain: bool,
    trackers: Sequence[Tracker] = (),
    check: Callable[[Config], None] = lambda _: None,
) -> RunSummary:
    """Goes on with a run whose config is changed as `change` says, where `check` lets it."""
    with folder.lock():
        before = _config_of(folder)
        after = change(before)
        check_resumable(before, after)
        console = make_console_tracker(plain)
        if folder.status == "finished" and after.run.rounds == before.run.rounds:
            console.note(f"{folder.path}: finished after {before.run.rounds} rounds, nothing to resume.")
            return RunSummary(folder.path, None)
        check(after)
        incidents = Incidents(console.note)
        start = starting_point(folder, before, after, incidents)
        num_done = start.round if start else 0
        partition = folder.path / PARTITION
        population = Population.of(after, partition if partition.exists() else None)
        try:
            # In this order: a run that did not get to its new config is not one that has finished with it.
            folder.begin_attempt(num_done)
            folder.write_config(to_dict(after))
        except OSError as error:
            raise RunFolderError(
                f"{folder.path}: cannot be written ({error.strerror}). Make room, or mend its rights."
            ) from None
        what = f"resuming after round {num_done} of {after.run.rounds}" if start else "no checkpoint, starting over"
        console.note(f"{folder.path}: {what}")
        return RunSummary(folder.path, attempt(after, population, folder, start, console, incidents, trackers))


def _config_of(folder: RunFolder, overrides: Sequence[str] = ()) -> Config:
    return load([config_layer(folder.path)], overrides, methods=config_classes())


@contextmanager
def _discarded_if_it_cannot_begin(folder: RunFolder) -> Iterator[None]:
    """What the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        if not has_begun(folder):
            folder.discard()
        raise
