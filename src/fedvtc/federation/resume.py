"""Resumes a run from its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedvtc.config import check_resumable, load, to_dict
from fedvtc.config.schema import Config
from fedvtc.errors import RunFolderError
from fedvtc.federation.attempt import RunSummary, attempt
from fedvtc.federation.starting_point import starting_point
from fedvtc.federation.trust import NOTHING_FOREIGN, check_trusted
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import PARTITION, RunFolder
from fedvtc.tracking import Tracker
from fedvtc.tracking.console import make_console_tracker


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

    return resume_folder(folder, lambda _: _config_of(folder, overrides), plain, check=check)


def resume_folder(
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
