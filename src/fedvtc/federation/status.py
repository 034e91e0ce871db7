"""Keeps the status of a run in run.json, and names the command that resumes it."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedvtc.config.schema import Config
from fedvtc.errors import UserError
from fedvtc.federation.trust import foreign_address, foreign_trackers, remote_dir
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking.console import PlainConsole


@contextmanager
def status_kept(
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


def _saved(store: CheckpointStore) -> str:
    """What of a run that ends early is saved, in words."""
    try:
        rounds = [manifest.round for manifest in store.manifests() if manifest.phase == "round"]
    except OSError as error:
        return f"the checkpoints cannot be read ({error.strerror or error})"
    return f"round {rounds[0]} is saved" if rounds else "no round is saved yet"


def has_begun(folder: RunFolder) -> bool:
    """Whether the run has come so far that there is something to go on from."""
    return any((folder.path / trace).exists() for trace in ("metrics.jsonl", "checkpoints"))


def resume_command(config: Config | None, folder: Path) -> str:
    """What a user types to go on with a run; without its config, what is typed for most."""
    words = ["fedvtc", "resume", str(folder)]
    if config is None:
        return shlex.join(words)
    if foreign_trackers(config):
        words.append(f"tracking.trackers=[{','.join(config.tracking.trackers)}]")
    if address := foreign_address(config):
        words.append(f"cluster.address={address}")
    if directory := remote_dir(config):
        words.append(f"checkpoint.dir={directory}")
    return shlex.join(words)
