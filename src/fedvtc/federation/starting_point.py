"""Finds the checkpoint that a resumed run continues from, and opens the store of a run's checkpoints."""

from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ConfigError, count_of
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.checkpoints.contents import misfit
from fedvtc.storage.records import METRICS_FILE, client_lines, count_recorded, read_metrics
from fedvtc.storage.run_folder import RunFolder


def checkpoint_store(config: Config, folder: RunFolder) -> CheckpointStore:
    """Returns the store of a run's checkpoints: in the run folder, or in the run's own folder under `checkpoint.dir`.

    Raises:
        CheckpointError: no file system is known for the URL, or its server does not answer.
    """
    if config.checkpoint.dir is None:
        return CheckpointStore(folder.path / "checkpoints")
    scheme, separator, directory = config.checkpoint.dir.rpartition("://")
    return CheckpointStore(f"{scheme}{separator}{directory.rstrip('/')}/{folder.name}-{folder.id}")


def is_complete(folder: RunFolder, config: Config) -> bool:
    """True if a finished run has its final record and its final checkpoint, which a full disk can prevent.

    A run without any checkpoint needs the final record only, because users delete the checkpoints of finished runs, and
    a resume would repeat all rounds. Files that cannot be read count as complete.

    Args:
        folder: the folder of a run with the status `finished`.
        config: the run's config so far.
    """
    end = ("final", config.run.rounds)
    try:
        if not _is_recorded(folder, end):
            return False
        manifests = checkpoint_store(config, folder).manifests() if config.checkpoint.every is not None else []
    except (OSError, CheckpointError):
        return True
    return not manifests or any((manifest.phase, manifest.round) == end for manifest in manifests)


def starting_point(
    store: CheckpointStore, folder: RunFolder, before: Config, after: Config, incidents: Incidents
) -> Manifest | None:
    """Finds the newest whole checkpoint that the records of the run reach.

    Args:
        store: the checkpoints of the run under `after`.
        folder: the run folder.
        before: the run's config so far.
        after: the config that the run continues with.
        incidents: receives each checkpoint that is skipped because it is damaged or belongs to another run.

    Returns:
        The checkpoint; None if the run has none and starts over.

    Raises:
        CheckpointError: the run has checkpoints and none can be used, or the checkpoints are missing.
        ConfigError: the run has more rounds than `after` asks for.
    """
    try:
        start = _newest_usable(store, folder, before, incidents)
        num_recorded = count_recorded(folder.path, after.population.num_clients)
        if start is None:
            check_starts_over(store, folder, before, num_recorded)
            return None
        if start.round > num_recorded:
            start = _within_records(store, folder, before, start, num_recorded, incidents)
    except OSError as error:
        what = f"{store.location}: checkpoints cannot be read ({error.strerror or error})"
        raise CheckpointError(f"{what}. Nothing was changed; resume when they can be read.") from None
    if start.round > after.run.rounds:
        what = f"run.rounds: the run has done {count_of(start.round, 'round')}, not {after.run.rounds}"
        raise ConfigError([f"{what}. Set run.rounds to at least {start.round}."])
    return start


def check_starts_over(store: CheckpointStore, folder: RunFolder, before: Config, num_recorded: int) -> None:
    """Refuses to start a run over if the run has had checkpoints.

    Args:
        store: the store, which holds no checkpoint of a round.
        folder: the run folder.
        before: the run's config so far.
        num_recorded: rounds whose records are whole.

    Raises:
        CheckpointError: the checkpoints are in the former `checkpoint.dir`, or their disk is not mounted.
    """
    former = _former_location(store, folder, before)
    if former is not None:
        fix = f"Move the contents of {former} there, or leave checkpoint.dir out."
        raise CheckpointError(f"checkpoint.dir: {store.location} holds no checkpoint of the run. {fix}")
    if folder.has_checkpoints and num_recorded:
        what = f"{store.location}: holds no checkpoint of the run, though its records reach round {num_recorded}"
        fix = f"Mount the disk of the checkpoints; to start over, remove {folder.path / METRICS_FILE}."
        raise CheckpointError(f"{what}. {fix}")


def _is_recorded(folder: RunFolder, end: tuple[str, int]) -> bool:
    """True if metrics.jsonl has the record of this phase and round, and clients.csv the rows of its evaluation."""
    records = [record for record in read_metrics(folder.path).records if (record["phase"], record["round"]) == end]
    rows = (line.values for line in client_lines(folder.path) if line.values is not None)
    is_evaluated = any("test/accuracy/mean" in record for record in records)
    return bool(records) and (not is_evaluated or any((row["phase"], row["round"]) == end for row in rows))


def _newest_usable(store: CheckpointStore, folder: RunFolder, before: Config, incidents: Incidents) -> Manifest | None:
    """Returns the newest whole checkpoint of a round of this run; None if there is no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    misfits: list[str] = []
    skipped: list[str] = []

    def fault_of(manifest: Manifest) -> str | None:
        fault = misfit(manifest, folder.id, before)
        if fault is None:
            return None
        misfits.append(f"{folder.path}: checkpoint {manifest.folder}: {fault[0]}. {fault[1]}")
        return fault[0]

    newest = store.newest_whole(skipped.append, fault_of=fault_of)
    for line in skipped:
        incidents.add("checkpoints_damaged", f"{line}; skipped")
    if newest is None and misfits:
        raise CheckpointError(misfits[0])
    if newest is None and skipped:
        fix = f"Repair a checkpoint, or remove {store.location} and {folder.path / METRICS_FILE} to start over."
        raise CheckpointError(f"{folder.path}: no checkpoint is whole. {fix}")
    return newest


def _within_records(
    store: CheckpointStore, folder: RunFolder, before: Config, start: Manifest, num_recorded: int, incidents: Incidents
) -> Manifest:
    """Returns the newest usable checkpoint up to the last recorded round; `start`, which is later, if there is none."""

    def fault_of(manifest: Manifest) -> str | None:
        fault = misfit(manifest, folder.id, before)
        return fault[0] if fault else None

    earlier = store.newest_whole(fault_of=fault_of, max_round=num_recorded)
    what = f"metrics.jsonl or clients.csv is whole up to round {num_recorded} only"
    rest = "later checkpoints are skipped" if earlier else f"the records up to round {start.round} are lost"
    incidents.tell(f"{folder.path}: {what}; {rest}")
    return earlier or start


def _former_location(store: CheckpointStore, folder: RunFolder, before: Config) -> str | None:
    """Returns the location of checkpoints under the run's config so far; None if equal to the store's, or empty."""
    try:
        former = checkpoint_store(before, folder)
        return former.location if former.location != store.location and former.manifests() else None
    # Nothing can be moved from a disk that is not mounted or a server that does not answer.
    except (OSError, CheckpointError):
        return None
