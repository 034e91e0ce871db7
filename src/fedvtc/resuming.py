"""What a run that is resumed goes on from, and whether what its folder says can be trusted."""

import os
import shlex
from pathlib import Path

from fedvtc.checkpoint import CheckpointStore, Manifest
from fedvtc.checkpoint.contents import misfit
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ConfigError
from fedvtc.incidents import Incidents
from fedvtc.tracking.choosing import foreign_trackers
from fedvtc.tracking.files import count_recorded
from fedvtc.tracking.run_folder import RunFolder

LOCAL_SCHEMES = ("file", "local", "memory")
"""Of URLs that lead to no server."""


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


NOTHING_FOREIGN = ("tracking.trackers=[]", "cluster.address=null", "checkpoint.dir=null")
"""Overrides after which a config names nothing that its folder alone has named."""


def check_trusted(config: Config, given: Config, folder: RunFolder) -> None:
    """A folder may come from a stranger: on its word no code is run, a tracker's or a cluster's, and no server asked.

    Args:
        config: of the run that goes on.
        given: the same with `NOTHING_FOREIGN` before what its user gave.
        folder: of the run.

    Raises:
        ConfigError: the config names what its user did not.
    """
    file = folder.path / "config.yaml"
    names = [name for name in foreign_trackers(config) if name not in given.tracking.trackers]
    if names:
        what = f"{names[0]} is named by {file} only, and no code is imported on its word"
        raise ConfigError([f"tracking.trackers: {what}. Give tracking.trackers=[...] with it, or without it."])
    address = _foreign_address(config)
    if address and address != given.cluster.address:
        what = f"{address} is named by {file} only, and a cluster can have this process run code"
        raise ConfigError([f"cluster.address: {what}. Give cluster.address={address}, or cluster.address=null."])
    if directory := foreign_dir(config, given):
        what = f"{directory} is named by {file} only, and its server would hear what this machine logs in with"
        raise ConfigError([f"checkpoint.dir: {what}. Give checkpoint.dir={directory}, or checkpoint.dir=null."])


def foreign_dir(config: Config, given: Config) -> str | None:
    """The `remote_dir` that a folder alone has named; arguments as of `check_trusted`."""
    directory = remote_dir(config)
    return None if directory == given.checkpoint.dir else directory


def remote_dir(config: Config) -> str | None:
    """The URL of the server that keeps the checkpoints; None where they stay on this machine."""
    scheme, separator, _ = (config.checkpoint.dir or "").partition("://")
    return config.checkpoint.dir if separator and scheme.lower() not in LOCAL_SCHEMES else None


def resume_command(config: Config | None, folder: Path) -> str:
    """What a user types to go on with a run; without its config, what is typed for most."""
    words = ["fedvtc", "resume", str(folder)]
    if config is None:
        return shlex.join(words)
    if foreign_trackers(config):
        words.append(f"tracking.trackers=[{','.join(config.tracking.trackers)}]")
    if address := _foreign_address(config):
        words.append(f"cluster.address={address}")
    if directory := remote_dir(config):
        words.append(f"checkpoint.dir={directory}")
    return shlex.join(words)


def _foreign_address(config: Config) -> str | None:
    """The cluster that a run attaches to, where neither this machine nor its user named it."""
    address = config.cluster.address
    if config.placement.pool == "inline" or address in (None, "auto", "local", os.environ.get("RAY_ADDRESS")):
        return None
    return address
