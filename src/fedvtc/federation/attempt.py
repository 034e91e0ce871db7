"""One attempt at a run: opens what a federation needs, runs it, and closes everything however it ends."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.config import to_dict
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, RunFolderError
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.federation.rounds import Federation, Record
from fedvtc.federation.starting_point import checkpoint_store
from fedvtc.federation.status import status_kept
from fedvtc.federation.stopper import Stopper
from fedvtc.learning.population import Population
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.storage.checkpoints import Manifest
from fedvtc.storage.checkpoints.contents import read_server
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.console import PlainConsole
from fedvtc.tracking.opening import all_trackers, tracking


def attempt(
    config: Config,
    population: Population,
    folder: RunFolder,
    start: Manifest | None,
    console: PlainConsole,
    incidents: Incidents,
    more_trackers: Sequence[Tracker] = (),
) -> Record:
    """One attempt at a run, from its start or from a checkpoint to its end.

    Args:
        config: of the run.
        population: who takes part.
        folder: locked by this process.
        start: the checkpoint that the run goes on from; None where there is none.
        console: shows it.
        incidents: what has happened so far, and hears of all else.
        more_trackers: hear of it besides those of every run.

    Returns:
        The final record.

    Raises:
        UserError: the cluster or the run folder are not as the config needs them.
        FedvtcError: the run could not go on.
        Interrupted: the run was asked to end.
    """
    number = len(folder.attempts)
    store = checkpoint_store(config, folder)
    try:
        folder.save_partition([spec.indices_N for spec in population.specs], population.dataset.train.labels_N)
    except OSError as error:
        raise RunFolderError(
            f"{folder.path}: cannot be written ({error.strerror or error}). Make room for it."
        ) from None
    try:
        store.clear_drafts()
    except OSError as error:
        what = f"{store.location}: checkpoints cannot be kept there ({error.strerror or error})"
        raise CheckpointError(f"{what}. Make it writable, or set checkpoint.dir to another place.") from None
    stopper = Stopper(console.note, config.runtime.stop_timeout_s)
    lineage = Lineage(store, start)
    class_names = population.dataset.class_names
    trackers = [
        *all_trackers(config, class_names, console, lambda text: incidents.add("disk_errors", text)),
        *more_trackers,
    ]
    info = RunInfo(
        id=folder.id,
        name=folder.path.name,
        folder=folder.path,
        config=config,
        config_dict=to_dict(config),
        class_counts_KC=population.class_counts_KC,
        backbones=[spec.backbone for spec in population.specs],
        resumed_round=None if number == 1 else (start.round if start else 0),
        checkpoints=store.location,
    )
    with ExitStack() as stack:
        stack.enter_context(stopper.listening())
        is_whole = stack.enter_context(status_kept(folder, store, config, console, incidents))
        # Around the pool: a server that a tracker waits for in the end does not keep GPUs from others.
        start_trackers = stack.enter_context(tracking(trackers, info))
        # Actors of a lost attempt may still hold their names.
        namespace = f"{folder.id}-{number}"
        opened = open_pool(
            config,
            population.dataset,
            population.specs,
            namespace=namespace,
            lineage=lineage,
            incidents=incidents,
        )
        pool = stack.enter_context(opened)
        start_trackers()
        checkpoints = Checkpointer(
            config,
            store,
            pool,
            lineage,
            incidents,
            run_id=folder.id,
            attempt=number,
            start=start,
            on_first=folder.note_checkpoints,
        )
        stack.callback(checkpoints.abandon)
        if start is not None:
            pool.restore([spec.client for spec in population.specs])
        federation = Federation(
            config, population, pool, trackers, checkpoints=checkpoints, incidents=incidents, stopper=stopper
        )
        record = federation.run(read_server(store, start) if start else None)
        is_whole()
    console.summary(record, folder.incidents)
    return record


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`; None where the run had ended before.
    """

    folder: Path
    record: Mapping[str, Any] | None
