"""Resumes a run from its folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedvtc.config import absolute_paths, changed_keys, check_resumable, load, to_dict
from fedvtc.config.layers import Layer
from fedvtc.config.schema import Config, DataConfig
from fedvtc.errors import DataError, RunFolderError, count_of
from fedvtc.federation.attempt import RunSummary, attempt
from fedvtc.federation.starting_point import checkpoint_store, is_complete, starting_point
from fedvtc.federation.status import undone_unless_begun
from fedvtc.learning.data import DataReport
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import check_owner
from fedvtc.tracking import Tracker
from fedvtc.tracking.console import PlainConsole, make_console_tracker


@dataclass(frozen=True)
class Resumption:
    """The config and the checkpoint that a resume takes from a run folder, loaded once.

    Attributes:
        folder: the run folder, locked by this process.
        before: the run's config so far.
        after: the config that the run continues with.
        start: the checkpoint that the run continues from; None if the run starts over.
        store: the store of the run's checkpoints under `after`.
    """

    folder: RunFolder
    before: Config
    after: Config
    start: Manifest | None
    store: CheckpointStore

    @classmethod
    def of(cls, folder: RunFolder, before: Config, after: Config, incidents: Incidents) -> Self:
        """Finds the checkpoint to continue from; `incidents` receives the checkpoints that are skipped.

        Raises:
            CheckpointError: see `starting_point`.
            ConfigError: see `starting_point`.
        """
        store = checkpoint_store(after, folder)
        return cls(folder, before, after, starting_point(store, folder, before, after, incidents), store)

    @property
    def num_done(self) -> int:
        """Rounds that the run has done; 0 if the run starts over."""
        return self.start.round if self.start else 0


def resume_federation(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    plain: bool = False,
    trusted: bool = False,
    owns_process: bool = False,
) -> RunSummary:
    """Resumes a run from its newest whole checkpoint, or starts the run over if it has none.

    Args:
        path: the run folder.
        overrides: `key=value` of keys that may change.
        plain: print one line per round instead of a live table.
        trusted: resume the run even if its folder belongs to another user.
        owns_process: see `run_federation`.

    Raises:
        UserError: the folder holds no run or belongs to another user, a key may not change, or another process writes
            the run.
        FedvtcError: the run failed.
        Interrupted: see `run_federation`.
    """
    folder = RunFolder.open(path)

    def change(before: Config) -> Config:
        so_far = Layer(str(folder.path / "config.yaml"), to_dict(before))
        return load([], overrides, methods=config_classes(), layers=[so_far]) if overrides else before

    return resume_folder(folder, change, plain=plain, trusted=trusted, owns_process=owns_process)


def resume_folder(
    folder: RunFolder,
    change: Callable[[Config], Config],
    *,
    plain: bool,
    trusted: bool,
    trackers: Sequence[Tracker] = (),
    owns_process: bool = False,
) -> RunSummary:
    """Resumes the run of an open folder.

    Args:
        folder: the run folder.
        change: returns the config to continue with, given the run's config so far.
        plain: see `resume_federation`.
        trusted: see `resume_federation`.
        trackers: trackers that receive the run beside the trackers of its config.
        owns_process: see `run_federation`.

    Raises:
        UserError: see `resume_federation`.
        FedvtcError: the run failed.
        Interrupted: see `run_federation`.
    """
    check_owner(folder.path, trusted)
    with folder.lock():
        before = absolute_paths(load([config_layer(folder.path)], [], methods=config_classes()))
        after = absolute_paths(change(before))
        check_resumable(before, after)
        console = make_console_tracker(plain)
        is_finished = folder.status == "finished" and after.run.rounds == before.run.rounds
        if is_finished and is_complete(folder, before):
            kept = [key for key in changed_keys(before, after) if key != "run.resume"]
            rest = f"; not changed: {', '.join(kept)}" if kept else ""
            console.note(
                f"{folder.path}: finished after {count_of(before.run.rounds, 'round')}, nothing to resume{rest}."
            )
            return RunSummary(folder.path, None)
        if is_finished:
            missing = "the final record or the final checkpoint is missing"
            console.note(f"{folder.path}: {missing}; the run continues from the last saved round")
        incidents = Incidents(console.note)
        resumption = Resumption.of(folder, before, after, incidents)
        return _continue(resumption, console, incidents, trackers, owns_process=owns_process)


def _continue(
    resumption: Resumption,
    console: PlainConsole,
    incidents: Incidents,
    trackers: Sequence[Tracker],
    *,
    owns_process: bool,
) -> RunSummary:
    """Writes the new attempt to the run folder and runs the remaining rounds.

    A user error before the first of these rounds leaves run.json and config.yaml as they were.
    """
    folder, after, num_done = resumption.folder, resumption.after, resumption.num_done
    population = Population.of(after, folder.partition if folder.partition.exists() else None)
    check_same_data(folder, after.data, population.report)
    with undone_unless_begun(folder, folder.restorer()):
        try:
            # run.json first: after a crash in between, the run must not look finished under the new config.
            folder.begin_attempt(num_done)
            folder.write_config(to_dict(after))
        except OSError as error:
            fix = "Free disk space, or make the folder writable."
            raise RunFolderError(f"{folder.path}: cannot be written ({error.strerror}). {fix}") from None
        how = f"resuming after round {num_done} of {after.run.rounds}" if num_done else "no checkpoint, starting over"
        console.note(f"{folder.path}: {how}")
        start, store = resumption.start, resumption.store
        return attempt(after, population, folder, store, start, console, incidents, trackers, owns_process=owns_process)


def check_same_data(folder: RunFolder, config: DataConfig, report: DataReport) -> None:
    """Refuses images or labels other than those that the run has been trained on so far.

    Raises:
        DataError: the hashes differ. A folder without a hash, of an older version, is accepted.
    """
    if folder.data_hash not in (None, report.hash):
        where = f"data.path={config.path}" if config.path else f"data.name={config.name}"
        what = "the images or labels are not those that this run was trained on (their hash differs from run.json)"
        raise DataError(f"{where}: {what}. Put the former data back, or start a new run.")
