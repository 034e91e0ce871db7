"""One attempt at a run: opens the parts of a federation, runs the rounds, and closes everything."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.config import changed_code, code_hashes, to_dict
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, RunFolderError
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.federation.rounds import Federation
from fedvtc.federation.status import status_kept
from fedvtc.federation.stopper import Stopper
from fedvtc.learning.population import Population
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.storage import versions
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.checkpoints.contents import read_server
from fedvtc.storage.confusions import CONFUSION_FILE, set_aside_damaged
from fedvtc.storage.measurements import remove_measurements
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.console import PlainConsole
from fedvtc.tracking.opening import all_trackers, tracking


@dataclass(frozen=True)
class RunSummary:
    """The end of a run.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`; None if the run had already finished.
    """

    folder: Path
    record: Mapping[str, Any] | None


def attempt(
    config: Config,
    population: Population,
    folder: RunFolder,
    store: CheckpointStore,
    start: Manifest | None,
    console: PlainConsole,
    incidents: Incidents,
    more_trackers: Sequence[Tracker] = (),
    *,
    owns_process: bool = False,
) -> RunSummary:
    """Runs a federation from its first round, or from a checkpoint, to its end.

    Args:
        config: the run's config.
        population: the data set and the clients.
        folder: the run folder, locked by this process; its last attempt is the present attempt.
        store: the store of the run's checkpoints.
        start: the checkpoint that the run continues from; None to start with round 1.
        console: prints the progress and messages.
        incidents: counts failures; already holds the failures of the launch or resume.
        more_trackers: trackers that receive the run beside the trackers of its config.
        owns_process: see `run_federation`.

    Raises:
        UserError: the cluster, the run folder or the checkpoint folder do not fit the config.
        FedvtcError: the run failed.
        Interrupted: a signal ended the run.
    """
    number = len(folder.attempts)
    hashes = code_hashes(config)
    if changed := changed_code(folder.attempts, hashes):
        what = f"{folder.path}: the code of {', '.join(changed)} has changed since the last attempt"
        console.note(f"{what}; the rounds that follow use the present code")
    if start is not None and (packages := versions.changed(start.versions)):
        what = f"{folder.path}: round {start.round} was computed with {', '.join(packages)}"
        console.note(f"{what}; the rounds that follow can differ in their last bits")
    _prepare_disk(folder, store, population, hashes)
    stopper = Stopper(console.note, config.runtime.stop_timeout_s, owns_process=owns_process)
    lineage = Lineage(store, start)
    class_names = population.dataset.class_names
    own = all_trackers(config, class_names, console, lambda text: incidents.add("disk_errors", text))
    trackers = [*own, *more_trackers]
    with (
        stopper.listening(),
        status_kept(folder, store, console, incidents) as mark_finished,
        stopper.naming_the_signal(),
        # Closed after the pool, so that a tracker that waits for its server at the end reserves no GPU.
        tracking(trackers, _run_info(config, population, folder, store, start)) as start_trackers,
        open_pool(
            config,
            population.dataset,
            population.specs,
            # With the attempt's number, because actors of a lost attempt may still hold their names.
            namespace=f"{folder.id}-{number}",
            lineage=lineage,
            incidents=incidents,
            idle_folder=folder.path,
        ) as pool,
    ):
        # Started after the pool, so that a cluster that is too small changes no files.
        _set_confusions_aside(folder, incidents)
        folder.has_begun = True
        start_trackers()
        if number == 1:
            console.note(population.report.line())
        else:
            # The trackers that have just started have removed the earlier final record.
            _remove_final_models(folder, store, console)
        with Checkpointer(
            config,
            store,
            pool,
            lineage,
            incidents,
            run_id=folder.id,
            attempt=number,
            start=start,
            on_first=folder.note_checkpoints,
        ) as checkpoints:
            if start is not None:
                pool.restore(sorted(lineage.worked()))
            federation = Federation(
                config, population, pool, trackers, checkpoints=checkpoints, incidents=incidents, stopper=stopper
            )
            record = federation.run(read_server(store, start) if start else None)
            mark_finished()
    console.summary(record, folder.incidents)
    return RunSummary(folder.path, record)


def _prepare_disk(folder: RunFolder, store: CheckpointStore, population: Population, hashes: Mapping[str, str]) -> None:
    """Saves hashes of code, data report and partition and deletes drafts, so that a full disk is reported early."""
    try:
        if hashes:
            folder.describe_attempt("code", hashes)
        folder.save_data(population.report.as_dict())
        folder.save_partition([spec.held for spec in population.specs], population.dataset.train.labels_N)
    except OSError as error:
        what = f"{folder.path}: cannot be written ({error.strerror or error})"
        raise RunFolderError(f"{what}. Free disk space, or set run.output_dir to another disk.") from None
    try:
        store.clear_drafts()
    except OSError as error:
        what = f"{store.location}: checkpoints cannot be written ({error.strerror or error})"
        raise CheckpointError(f"{what}. Make the folder writable, or set checkpoint.dir to another folder.") from None


@contextmanager
def _needs_writable(what: str) -> Iterator[None]:
    """Raises an error of the disk as a RunFolderError that says what cannot be done."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{what} ({error.strerror or error}). Make the folder writable.") from None


def _set_confusions_aside(folder: RunFolder, incidents: Incidents) -> None:
    """Renames a damaged confusion.npz of an earlier attempt, to which no evaluation can be added."""
    file = folder.path / CONFUSION_FILE
    with _needs_writable(f"{file}: damaged, and cannot be renamed"):
        kept_as = set_aside_damaged(folder.path)
    if kept_as:
        incidents.add("disk_errors", f"{file}: damaged; kept as {kept_as}, and the new file lacks earlier evaluations")


def _remove_final_models(folder: RunFolder, store: CheckpointStore, console: PlainConsole) -> None:
    """Deletes the final checkpoint of an earlier attempt, then the measurements of its models.

    In this order: without the checkpoint, no command measures the earlier models again. After a crash in between,
    run.json does not say `finished`, and the next attempt deletes the rest.
    """
    store.remove("final")
    with _needs_writable(f"{folder.path}: measurements of the earlier final models cannot be deleted"):
        removed = remove_measurements(folder.path)
    if removed:
        what = f"{folder.path}: deleted {', '.join(removed)}, measured with the earlier final models"
        console.note(f"{what}; measure again after the last round")


def _run_info(
    config: Config, population: Population, folder: RunFolder, store: CheckpointStore, start: Manifest | None
) -> RunInfo:
    resumed_round = 0 if len(folder.attempts) > 1 else None
    return RunInfo(
        id=folder.id,
        name=folder.path.name,
        folder=folder.path,
        config=config,
        config_dict=to_dict(config),
        class_counts_KC=population.class_counts_KC,
        backbones=[spec.backbone for spec in population.specs],
        resumed_round=start.round if start else resumed_round,
        checkpoints=store.location,
    )
