"""Locks a folder, so that one process at a time writes files there, on any node that shares the folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fedvtc.errors import RunFolderError

LOCK_FILE = ".lock"
MAX_HOLDER_BYTES = 300
READER_S = 0.2
"""Seconds to wait for readers: `holder` takes a shared lock for a moment."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a folder for this process while the block lasts.

    The system releases the lock when the process ends, also by SIGKILL. Child processes do not inherit the lock.

    Args:
        path: the folder.

    Raises:
        RunFolderError: if another process holds the lock, the folder is missing or cannot be written, or its file
            system has no locks.
    """
    # `FileLock` would create a missing folder.
    if not path.is_dir():
        raise RunFolderError(f"{path}: cannot be locked (no such folder). Name an existing folder.")
    # A soft lock would outlive a killed process.
    lock = FileLock(path / LOCK_FILE, timeout=READER_S, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        lock.acquire()
    except Timeout:
        message = f"{path}: another process writes this folder ({_text_of(path / LOCK_FILE)})"
        raise RunFolderError(f"{message}. Wait until that process ends, or stop that process.") from None
    except OSError as error:
        # Errors of the lock call itself name no file.
        if error.filename is None:
            fix = "Put run.output_dir on a file system that has locks."
            raise RunFolderError(f"{path}: cannot be locked ({error.strerror}). {fix}") from None
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}). Make the folder writable.") from None
    try:
        yield
    finally:
        lock.release()


def holder(path: Path) -> str | None:
    """Returns the process that holds a folder's lock, such as `pid 4711 on node3`; None if no process does.

    Writes nothing, so reading permission is enough.

    Args:
        path: the folder.

    Raises:
        OSError: if the lock file cannot be opened, or its file system has no locks.
    """
    file = path / LOCK_FILE
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that readers do not take each other for the holder; NFS allows no exclusive lock without writing.
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except (BlockingIOError, PermissionError):
        return _text_of(file)
    finally:
        os.close(opened)


def _write_holder(lock: int) -> None:
    # On a full disk the lock still holds, but errors of other processes cannot name this process.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _text_of(file: Path) -> str:
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(MAX_HOLDER_BYTES).decode(errors="replace").strip() or "unknown process"
    return "unknown process"
