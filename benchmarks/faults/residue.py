"""What a run has left behind: processes that carry its mark in their environment, entries of shared memory."""

import os
import signal
import time
from pathlib import Path

MARK = "FEDVTC_CHAOS"
"""The environment variable that marks every process of one trial."""


def processes(mark: str) -> dict[int, str]:
    """The command of every process that runs with this mark, by number; zombies have no environment and do not count.

    Ray's workers write their title over their environment unless SPT_NOENV is set.
    """
    wanted, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
            except OSError:  # It ended meanwhile.
                continue
    return found


def orphans(mark: str, patience_s: float = 30.0) -> dict[int, str]:
    """The processes that are still there after some seconds, as Ray ends its own one by one."""
    until_s = time.monotonic() + patience_s
    while (left := processes(mark)) and time.monotonic() < until_s:
        time.sleep(0.2)
    return left


def kill(mark: str) -> None:
    """Ends all processes with the mark, by number, until there are none."""
    while left := processes(mark):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def shared_memory() -> set[str]:
    """The entries of /dev/shm, and the files that Ray's object store falls back to."""
    return {str(path) for folder in ("/dev/shm", "/tmp/ray/plasma") for path in Path(folder).glob("*")}
