"""The status of a run in run.json, and the command that resumes the run."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedvtc.errors import UserError
from fedvtc.federation.trust import is_owned
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking.console import PlainConsole


@contextmanager
def status_kept(
    folder: RunFolder, store: CheckpointStore, console: PlainConsole, incidents: Incidents
) -> Iterator[Callable[[], None]]:
    """Writes the status of the run to run.json when the block ends, and prints the resume command if the run failed.

    Yields:
        A function that marks the run as finished. Call the function once all results are written: a Ctrl-C after the
        call, while trackers and the pool close, leaves a finished run.
    """
    is_finished = False

    def mark_finished() -> None:
        nonlocal is_finished
        is_finished = True
        try:
            folder.set_status("finished", incidents.totals)
        except OSError as error:
            file = folder.path / "run.json"
            console.note(f"{file}: cannot be written ({error.strerror}), so its status stays `running`")

    try:
        yield mark_finished
    except BaseException as error:
        if is_finished and isinstance(error, KeyboardInterrupt):
            raise
        # On a full disk the user must see the first error, not that of run.json.
        with suppress(OSError):
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.set_status(status, incidents.totals)
        # A user error before the first round leaves no folder to resume.
        if has_begun(folder) or not isinstance(error, UserError):
            console.note(f"{_newest_saved(store)}; resume with: {resume_command(folder.path)}")
        raise
    # Again, with the incidents that happened while the trackers finished.
    mark_finished()


def has_begun(folder: RunFolder) -> bool:
    """True if the folder holds records or checkpoints to resume from."""
    return any((folder.path / name).exists() for name in ("metrics.jsonl", "checkpoints"))


def resume_command(folder: Path) -> str:
    """The command line that resumes the run of a folder, quoted for a shell."""
    trust = [] if is_owned(folder) else ["--trust"]
    return shlex.join(["fedvtc", "resume", str(folder), *trust])


def _newest_saved(store: CheckpointStore) -> str:
    """The newest saved round, in words for the user."""
    try:
        rounds = [manifest.round for manifest in store.manifests() if manifest.phase == "round"]
    except OSError as error:
        return f"the checkpoints cannot be read ({error.strerror or error})"
    return f"round {rounds[0]} is saved" if rounds else "no round is saved yet"
