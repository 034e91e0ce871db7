"""Who may write a folder: one process at a time, on any node that shares it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedvtc.errors import RunFolderError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes, on any node that shares the folder, from writing it as long as the block lasts.

    The lock belongs to this process: it is gone when the process dies in whatever way, and no child inherits it.

    Raises:
        RunFolderError: if another process holds it, or the folder cannot be written.
    """
    try:
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        fix = "Make the folder writable."
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}). {fix}") from None
    try:
        _acquire(lock, path)
        yield
    finally:
        os.close(lock)


def _acquire(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 300, 0).decode(errors="replace").strip()
        who = f"another process writes it ({holder or 'it has not said which'})"
        raise RunFolderError(f"{path}: {who}. Wait for it, or stop it.") from None
    except OSError as error:
        fix = "Put run.output_dir on a file system that has locks."
        raise RunFolderError(f"{path}: cannot be locked ({error.strerror}). {fix}") from None
    # A full disk keeps nobody from going on; others then do not learn who it is.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
