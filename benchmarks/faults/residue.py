"""What a run has left behind: processes that carry its mark in their environment, entries of shared memory."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

MARK = "FEDVTC_CHAOS"
"""The environment variable that marks every process of one trial."""
AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Where a driver is killed, these two try for 60 s to tell the head of the cluster, which is gone too, and end then: so
Ray 2.60 has it in `publish_error_to_driver`. Names are cut to 15 letters."""


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
    """The processes that are still there after some seconds, but for Ray's agents, which need longer."""
    return _left(lambda: {pid: name for pid, name in processes(mark).items() if name not in AGENTS}, patience_s)


def agents(marks: Sequence[str], patience_s: float = 90.0) -> dict[int, str]:
    """Those of Ray's agents that are still there after some seconds."""
    return _left(lambda: {pid: name for mark in marks for pid, name in processes(mark).items()}, patience_s)


def kill(found: Iterable[int]) -> None:
    """Ends processes, by number."""
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _left(find: Callable[[], dict[int, str]], patience_s: float) -> dict[int, str]:
    until_s = time.monotonic() + patience_s
    while (found := find()) and time.monotonic() < until_s:
        time.sleep(0.2)
    return found


def shared_memory() -> set[str]:
    """The entries of /dev/shm, and the files that Ray's object store falls back to."""
    return {str(path) for folder in ("/dev/shm", "/tmp/ray/plasma") for path in Path(folder).glob("*")}
