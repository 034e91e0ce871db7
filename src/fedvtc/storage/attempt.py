"""Describes for run.json what a process that runs a run is: when, where, with which code and on which hardware."""

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fedvtc.storage import versions
from fedvtc.storage.commits import commits


def now() -> str:
    """Returns the present time in UTC, in ISO format with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_attempt() -> dict[str, Any]:
    """Describes this process as an attempt of a run.

    Returns:
        `started`, `host`, `pid`, `versions`, and `commits` if the code is in a repository.
    """
    attempt = {"started": now(), "host": socket.gethostname(), "pid": os.getpid(), "versions": versions.installed()}
    found = commits()
    return {**attempt, "commits": found} if found else attempt


def hardware(gpus: Sequence[str]) -> dict[str, Any]:
    """Describes this machine.

    Args:
        gpus: names of the GPUs.

    Returns:
        `cpus`, `memory_bytes` and `gpus`.
    """
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_bytes": memory_bytes, "gpus": list(gpus)}
