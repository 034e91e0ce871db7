"""Finds leftovers of a run: processes with the run's mark in their environment, entries of shared memory."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

MARK = "FEDVTC_CHAOS"
"""The environment variable that marks every process of one trial."""
AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Agents of Ray that outlive a killed driver: each tries for 60 s to report to the head of the cluster, which is gone
too (`publish_error_to_driver` of Ray 2.60), and then ends. The system cuts names to 15 letters."""


def processes(mark: str) -> dict[int, str]:
    """The names of all processes with this mark, by process id, without zombies, which have no environment.

    Ray's workers overwrite their environment with a title unless SPT_NOENV is set.
    """
    wanted, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
            except OSError:  # The process has ended.
                continue
    return found


def orphans(mark: str, patience_s: float = 30.0) -> dict[int, str]:
    """The processes that still run after some seconds, without Ray's agents, which need longer to end."""
    return _left(lambda: {pid: name for pid, name in processes(mark).items() if name not in AGENTS}, patience_s)


def agents(marks: Sequence[str], patience_s: float) -> dict[int, str]:
    """The agents of Ray that still run after some seconds."""
    return _left(lambda: {pid: name for mark in marks for pid, name in processes(mark).items()}, patience_s)


def kill(found: Iterable[int]) -> None:
    """Kills processes by process id."""
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _left(find: Callable[[], dict[int, str]], patience_s: float) -> dict[int, str]:
    until_s = time.monotonic() + patience_s
    while (found := find()) and time.monotonic() < until_s:
        time.sleep(0.2)
    return found


def shared_memory() -> set[str]:
    """The entries of /dev/shm, and the fallback files of Ray's object store."""
    return {str(path) for folder in ("/dev/shm", "/tmp/ray/plasma") for path in Path(folder).glob("*")}
