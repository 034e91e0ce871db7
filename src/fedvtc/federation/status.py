"""Keeps the status of a run in run.json, and undoes an attempt that a user error ends before its first round."""

import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fedvtc.errors import FedvtcError, Interrupted, UserError, first_line
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import resume_command
from fedvtc.tracking.console import PlainConsole

MAX_REASON_LETTERS = 300
"""Longest reason in run.json; tables show the reason in one cell."""


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
            folder.set_status(status, incidents.totals, reason_of_end(error))
        # A user error before the first round leaves nothing to resume, see `undone_unless_begun`.
        if folder.has_begun or not isinstance(error, UserError):
            console.note(f"{_newest_saved(store)}; resume with: {resume_command(folder.path)}")
        raise
    # Again, with the incidents that happened while the trackers finished.
    mark_finished()


def reason_of_end(error: BaseException) -> str:
    """Returns the reason of a run's end for run.json, in one line: the signal, or the first line of the error."""
    if isinstance(error, KeyboardInterrupt):
        return signal.Signals(error.signum).name if isinstance(error, Interrupted) else "KeyboardInterrupt"
    text = first_line(error)
    if not isinstance(error, FedvtcError) and text != type(error).__name__:
        text = f"{type(error).__name__}: {text}"
    return textwrap.shorten(text, MAX_REASON_LETTERS)


@contextmanager
def undone_unless_begun(folder: RunFolder, undo: Callable[[], None]) -> Iterator[None]:
    """Calls `undo` after a user error before the first round, so that the corrected command finds nothing changed.

    Args:
        folder: the run folder; its `has_begun` tells if the attempt has begun.
        undo: undoes the preparations of the attempt.
    """
    try:
        yield
    except UserError:
        if not folder.has_begun:
            undo()
        raise


def _newest_saved(store: CheckpointStore) -> str:
    """The newest saved round, in words for the user."""
    try:
        rounds = [manifest.round for manifest in store.manifests() if manifest.phase == "round"]
    except OSError as error:
        return f"the checkpoints cannot be read ({error.strerror or error})"
    return f"round {rounds[0]} is saved" if rounds else "no round is saved yet"
