"""One attempt at a run: opens what a federation needs, runs it, and closes everything however it ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from fedvtc.checkpoint import CheckpointStore, Manifest
from fedvtc.checkpoint.contents import read_server
from fedvtc.checkpointing import Checkpointer
from fedvtc.config import to_dict
from fedvtc.config.schema import Config
from fedvtc.data import save_partition
from fedvtc.errors import CheckpointError, RunFolderError, UserError
from fedvtc.federation import Federation, Population, Record
from fedvtc.incidents import Incidents
from fedvtc.resuming import checkpoint_store, resume_command
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.stopping import Stopper
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.choosing import make_trackers
from fedvtc.tracking.console import PlainConsole
from fedvtc.tracking.files import CsvTracker, JsonlTracker
from fedvtc.tracking.guard import GuardedTracker
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.replacing import replaced
from fedvtc.tracking.run_folder import RunFolder

PARTITION = "partition.npz"


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
        _save_partition(folder, population)
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
    trackers = [*_trackers(config, population, incidents, console), *more_trackers]
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
        is_whole = stack.enter_context(_status_kept(folder, store, config, console, incidents))
        # Around the pool: a server that a tracker waits for in the end does not keep GPUs from others.
        start_trackers = stack.enter_context(_tracking(trackers, info))
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


def has_begun(folder: RunFolder) -> bool:
    """Whether the run has come so far that there is something to go on from."""
    return any((folder.path / trace).exists() for trace in ("metrics.jsonl", "checkpoints"))


def _trackers(config: Config, population: Population, incidents: Incidents, console: PlainConsole) -> list[Tracker]:
    def report(text: str) -> None:
        incidents.add("disk_errors", text)

    files: list[Tracker] = [JsonlTracker(), CsvTracker(), PictureTracker(population.dataset.class_names)]
    guarded = [GuardedTracker(tracker, config.runtime.on_disk_error, report) for tracker in files]
    # They read what the first ones have made of the run folder.
    return [*guarded, *make_trackers(config, population.dataset.class_names, console.note), console]


def _save_partition(folder: RunFolder, population: Population) -> None:
    path = folder.path / PARTITION
    if not path.exists():
        with replaced(path) as beside:
            save_partition(beside, [spec.indices_N for spec in population.specs], population.dataset.train.labels_N)


def _saved(store: CheckpointStore) -> str:
    """What of a run that ends early is saved, in words."""
    try:
        rounds = [manifest.round for manifest in store.manifests() if manifest.phase == "round"]
    except OSError as error:
        return f"the checkpoints cannot be read ({error.strerror or error})"
    return f"round {rounds[0]} is saved" if rounds else "no round is saved yet"


@contextmanager
def _status_kept(
    folder: RunFolder, store: CheckpointStore, config: Config, console: PlainConsole, incidents: Incidents
) -> Iterator[Callable[[], None]]:
    """run.json says how the block ended; where it did not end well, the user learns how to go on.

    Gives what the block calls once the run is whole, and has only to be closed: who breaks that off has a run that is
    finished.
    """
    is_whole = False

    def finished() -> None:
        nonlocal is_whole
        is_whole = True
        try:
            folder.set_status("finished", incidents.totals)
        except OSError as error:
            file = folder.path / "run.json"
            console.note(f"{file}: cannot be written ({error.strerror}), so it says that the run goes on")

    try:
        yield finished
    except BaseException as error:
        if is_whole and isinstance(error, KeyboardInterrupt):
            raise
        # Where the disk is full, that is not the error that the user has to see.
        with suppress(OSError):
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.set_status(status, incidents.totals)
        # What the user has to mend before a run has begun leaves no folder.
        if has_begun(folder) or not isinstance(error, UserError):
            console.note(f"{_saved(store)}; go on with: {resume_command(config, folder.path)}")
        raise
    # Once more, with what went wrong as the trackers finished.
    finished()


@contextmanager
def _tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[Callable[[], None]]:
    """Gives what starts the trackers; finishes those that were started, however the block ends."""
    with ExitStack() as stack:
        outcome = {"status": "failed"}

        def start() -> None:
            for tracker in trackers:
                tracker.start(info)
                stack.callback(_finish, tracker, outcome)

        try:
            yield start
        except KeyboardInterrupt:
            outcome["status"] = "interrupted"
            raise
        outcome["status"] = "finished"


def _finish(tracker: Tracker, outcome: Mapping[str, str]) -> None:
    tracker.finish(outcome["status"])
