"""The true status of a run: a killed process leaves the status `running` in run.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.storage.lock import holder


@dataclass(frozen=True)
class RunStatus:
    """The status of a run, as a user should read it.

    Attributes:
        name: one of `run_files.STATUSES`, or `killed`: run.json says `running`, but no process writes the folder.
        reason: the reason of the end in one line; empty for a run that is running or finished.
        holder: the process that writes the folder, such as `pid 4711 on node3`; None if no process does.
    """

    name: str
    reason: str = ""
    holder: str | None = None


def true_status(folder: Path, description: Mapping[str, Any]) -> RunStatus:
    """Compares the status in run.json with the lock of the folder, which the system releases with the process.

    Writes nothing and needs reading permission only.

    Args:
        folder: the run folder.
        description: the parsed run.json; missing keys are allowed.

    Raises:
        OSError: the lock cannot be read, or its file system has no locks.
    """
    writer = holder(folder)
    name = str(description.get("status", "?"))
    if name == "running" and writer is None:
        return RunStatus("killed", _killed(description))
    reason = "" if name in ("running", "finished") else str(description.get("reason", ""))
    return RunStatus(name, reason, writer)


def _killed(description: Mapping[str, Any]) -> str:
    attempts = description.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    if not isinstance(last, Mapping) or "pid" not in last:
        return "its process ended without writing a status"
    return f"pid {last['pid']} on {last.get('host', '?')} ended without writing a status"
