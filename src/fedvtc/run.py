"""A run from its config, or from its folder on: opens what a federation needs, and closes it however it ends."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedvtc.checkpoint import CheckpointStore, Manifest
from fedvtc.checkpointing import Checkpointer, read_server
from fedvtc.config import check_resumable, fingerprint, load, same_place, to_dict
from fedvtc.config.schema import Config
from fedvtc.data import save_partition
from fedvtc.errors import CheckpointError, ConfigError, RunFolderError, UserError
from fedvtc.federation import Federation, Population
from fedvtc.incidents import Incidents
from fedvtc.methods import config_classes
from fedvtc.runtime import Lineage, open_pool
from fedvtc.stopping import Stopper
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.console import PlainConsole, make_console_tracker
from fedvtc.tracking.files import CsvTracker, JsonlTracker
from fedvtc.tracking.guard import GuardedTracker
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.run_folder import RunFolder, replaced

PARTITION = "partition.npz"


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`; None where the run had ended before.
    """

    folder: Path
    record: Mapping[str, Any] | None


def run_federation(config: Config, *, plain: bool = False) -> RunSummary:
    """Runs a federation from its config to its run folder, or resumes it where `run.resume` says so.

    Args:
        config: whole and checked.
        plain: one line per round instead of a live table.

    Raises:
        UserError: the data, the cluster or the run folder are not as the config needs them.
        FedvtcError: the run could not go on.
    """
    path = Path(config.run.output_dir, config.run.name or default_name(config))
    if config.run.resume == "auto" and (path / "run.json").exists():
        folder = RunFolder.open(path)
        return _resume(folder, lambda before: same_place(before, config), plain)
    population = Population.of(config)
    folder = RunFolder.create(config.run.output_dir, path.name, to_dict(config))
    with folder.lock(), _discarded_if_it_cannot_begin(folder):
        return _federate(config, population, folder, None, make_console_tracker(plain))


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
    return _resume(folder, lambda _: _config_of(folder, overrides), plain)


def default_name(config: Config) -> str:
    """Data, partition, method, seed and the time to the second."""
    method = config.method.label or config.method.name
    return _file_name(f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}")


def partition_name(config: Config) -> str:
    """Data and partition, in a word that is fit for a file name."""
    partition = config.partition
    divided = f"{partition.kind}{partition.alpha:g}" if partition.kind in ("dirichlet", "quantity") else partition.kind
    return _file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def checkpoint_store(config: Config, folder: RunFolder) -> CheckpointStore:
    """Where the checkpoints of a run are."""
    if config.checkpoint.dir is None:
        return CheckpointStore(folder.path / "checkpoints")
    return CheckpointStore(f"{config.checkpoint.dir.rstrip('/')}/{folder.name}-{folder.id}")


def _resume(folder: RunFolder, change: Callable[[Config], Config], plain: bool) -> RunSummary:
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
        console.note(f"{folder.path}: resuming after round {num_done} of {after.run.rounds}")
        return _federate(after, population, folder, start, console)


def _start(folder: RunFolder, before: Config, after: Config, console: PlainConsole) -> Manifest | None:
    """The newest whole checkpoint of a run, or None where there is none at all."""
    store, former = checkpoint_store(after, folder), checkpoint_store(before, folder)
    damaged: list[str] = []
    start = store.newest_whole(damaged.append)
    for line in damaged:
        console.note(f"{line}; passed over")
    if start is None and damaged:
        fix = f"Mend one of them, or remove {store.location} to start over."
        raise CheckpointError(f"{folder.path}: no checkpoint is whole. {fix}")
    if start is None and store.location != former.location and former.manifests(_ignore):
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


def _federate(
    config: Config, population: Population, folder: RunFolder, start: Manifest | None, console: PlainConsole
) -> RunSummary:
    """One attempt at a run, from its start or from a checkpoint to its end."""
    partition = folder.path / PARTITION
    if not partition.exists():
        with replaced(partition) as beside:
            save_partition(beside, [spec.indices_N for spec in population.specs], population.dataset.train.labels_N)
    attempt = len(folder.attempts)
    store = checkpoint_store(config, folder)
    store.clear_drafts()
    incidents = Incidents(console.note)
    stopper = Stopper(console.note, config.runtime.stop_timeout_s)
    lineage = Lineage(store, start)
    trackers = _trackers(config, population, incidents, console)
    info = RunInfo(
        id=folder.id,
        name=folder.path.name,
        folder=folder.path,
        config=config,
        config_dict=to_dict(config),
        class_counts_KC=population.class_counts_KC,
        backbones=[spec.backbone for spec in population.specs],
        resumed_round=None if attempt == 1 else (start.round if start else 0),
    )
    with ExitStack() as stack:
        stack.enter_context(stopper.listening())
        stack.enter_context(_status_kept(folder, store, console))
        namespace = f"{folder.id}-{attempt}"
        pool = stack.enter_context(
            open_pool(
                config,
                population.dataset,
                population.specs,
                namespace=namespace,
                lineage=lineage,
                incidents=incidents,
            )
        )
        stopper.listen()
        stack.enter_context(_tracking(trackers, info))
        checkpoints = Checkpointer(
            config,
            store,
            pool,
            lineage,
            incidents,
            run_id=folder.id,
            attempt=attempt,
            start=start,
        )
        stack.callback(checkpoints.finish_writing)
        if start is not None:
            pool.restore([spec.client for spec in population.specs])
        federation = Federation(
            config, population, pool, trackers, checkpoints=checkpoints, incidents=incidents, stopper=stopper
        )
        record = federation.run(read_server(store, start) if start else None)
    console.summary(record, incidents.totals)
    return RunSummary(folder.path, record)


def _trackers(config: Config, population: Population, incidents: Incidents, console: PlainConsole) -> list[Tracker]:
    def report(text: str) -> None:
        incidents.add("disk_errors", text)

    files: list[Tracker] = [JsonlTracker(), CsvTracker(), PictureTracker(population.dataset.class_names)]
    return [*(GuardedTracker(tracker, config.runtime.on_disk_error, report) for tracker in files), console]


def _config_of(folder: RunFolder, overrides: Sequence[str] = ()) -> Config:
    return load([folder.config_layer()], overrides, methods=config_classes())


def _ignore(line: str) -> None:
    pass


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)


@contextmanager
def _discarded_if_it_cannot_begin(folder: RunFolder) -> Iterator[None]:
    """What the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        if not _has_begun(folder):
            folder.discard()
        raise


def _has_begun(folder: RunFolder) -> bool:
    return any((folder.path / trace).exists() for trace in ("metrics.jsonl", "checkpoints"))


@contextmanager
def _status_kept(folder: RunFolder, store: CheckpointStore, console: PlainConsole) -> Iterator[None]:
    """run.json says how the block ended; where it did not end well, the user learns how to go on."""
    try:
        yield
    except BaseException as error:
        # Where the disk is full, that is not the error that the user has to see.
        with suppress(OSError):
            folder.set_status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        if _has_begun(folder):
            saved = [manifest.round for manifest in store.manifests(_ignore) if manifest.phase == "round"]
            what = f"round {saved[0]} is saved" if saved else "no round is saved yet"
            console.note(f"{what}; go on with: fedvtc resume {shlex.quote(str(folder.path))}")
        raise
    try:
        folder.set_status("finished")
    except OSError as error:
        console.note(
            f"{folder.path / 'run.json'}: cannot be written ({error.strerror}), so it says that the run goes on"
        )


@contextmanager
def _tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[None]:
    """Starts the trackers, and finishes them however the block ends."""
    with ExitStack() as stack:
        outcome = {"status": "failed"}
        for tracker in trackers:
            tracker.start(info)
            stack.callback(_finish, tracker, outcome)
        try:
            yield
        except KeyboardInterrupt:
            outcome["status"] = "interrupted"
            raise
        outcome["status"] = "finished"


def _finish(tracker: Tracker, outcome: Mapping[str, str]) -> None:
    tracker.finish(outcome["status"])
