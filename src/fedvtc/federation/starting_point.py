"""What a run that is resumed goes on from, and whether what its folder says can be trusted."""

from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ConfigError
from fedvtc.federation.trust import remote_dir
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.checkpoints.contents import misfit
from fedvtc.storage.records import count_recorded
from fedvtc.storage.run_folder import RunFolder


def starting_point(folder: RunFolder, before: Config, after: Config, incidents: Incidents) -> Manifest | None:
    """The newest whole checkpoint of a run up to which its records are whole too, or None where it starts over.

    Args:
        folder: of the run.
        before: its config so far.
        after: the one that it goes on with.
        incidents: hear of checkpoints that are damaged or not those of the run, where an older one is taken.

    Raises:
        CheckpointError: there are checkpoints and none can be used, or they are not where they were.
        ConfigError: the run has done more rounds than it is to have.
    """
    store = checkpoint_store(after, folder)
    try:
        return _starting_point(store, folder, before, after, incidents)
    except OSError as error:
        what = f"{store.location}: checkpoints cannot be looked for ({error.strerror or error})"
        raise CheckpointError(f"{what}. Nothing was changed; resume once it answers.") from None


def _starting_point(
    store: CheckpointStore, folder: RunFolder, before: Config, after: Config, incidents: Incidents
) -> Manifest | None:
    misfits: list[str] = []
    lines: list[str] = []

    def fault_of(manifest: Manifest) -> str | None:
        problem = misfit(manifest, folder.id, before)
        if problem is None:
            return None
        misfits.append(f"{folder.path}: checkpoint {manifest.folder}: {problem[0]}. {problem[1]}")
        return problem[0]

    start = store.newest_whole(lines.append, fault_of=fault_of)
    for line in lines:
        incidents.add("checkpoints_damaged", f"{line}; passed over")
    if start is None and misfits:
        raise CheckpointError(misfits[0])
    if start is None and lines:
        records = folder.path / "metrics.jsonl"
        fix = f"Mend one of them, or remove {store.location} and {records} to start over."
        raise CheckpointError(f"{folder.path}: no checkpoint is whole. {fix}")
    num_recorded = count_recorded(folder.path, after.population.num_clients)
    if start is None:
        check_starts_over(store, folder, before, num_recorded)
        return None
    if start.round > num_recorded:
        what = f"metrics.jsonl or clients.csv is whole up to round {num_recorded} only"
        earlier = store.newest_whole(fault_of=fault_of, max_round=num_recorded)
        rest = "later checkpoints are passed over" if earlier else "records up to the checkpoint are lost"
        incidents.tell(f"{folder.path}: {what}; {rest}")
        start = earlier or start
    if start.round > after.run.rounds:
        what = f"the run has done {start.round} rounds, not {after.run.rounds}"
        raise ConfigError([f"run.rounds: {what}. Give at least {start.round}."])
    return start


def check_starts_over(store: CheckpointStore, folder: RunFolder, before: Config, num_recorded: int) -> None:
    """Where a run has no checkpoint it starts over, unless it has had some.

    Args:
        store: where there is none.
        folder: of the run.
        before: its config so far.
        num_recorded: rounds whose records are whole.

    Raises:
        CheckpointError: they lie where they were looked for before, or the disk that held them is not there.
    """
    # A server that only the folder names is not asked.
    if remote_dir(before) is None:
        former = checkpoint_store(before, folder)
        if store.location != former.location and _any_in(former):
            fix = f"Move what is in {former.location} there, or leave it out."
            raise CheckpointError(f"checkpoint.dir: {store.location} holds no checkpoint of the run. {fix}")
    if folder.has_checkpoints and num_recorded:
        what = f"{store.location}: holds no checkpoint of the run, though its records reach round {num_recorded}"
        fix = f"Mount it or put it back; to start over, remove {folder.path / 'metrics.jsonl'}."
        raise CheckpointError(f"{what}. {fix}")


def _any_in(store: CheckpointStore) -> bool:
    try:
        return bool(store.manifests())
    # A place that is gone holds none that could be moved.
    except OSError:
        return False


def checkpoint_store(config: Config, folder: RunFolder) -> CheckpointStore:
    """Where the checkpoints of a run are."""
    if config.checkpoint.dir is None:
        return CheckpointStore(folder.path / "checkpoints")
    scheme, separator, place = config.checkpoint.dir.rpartition("://")
    return CheckpointStore(f"{scheme}{separator}{place.rstrip('/')}/{folder.name}-{folder.id}")
