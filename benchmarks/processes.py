"""CPU seconds and memory of this process and of its descendants, from /proc. Linux only."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The process and its descendants."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += below.get(each, [])
    return found


def cpu_seconds() -> float:
    """CPU seconds of this process, and of its living descendants, to a hundredth of a second."""
    return time.process_time() + sum(map(_ticks, descendants(os.getpid())[1:])) / _TICKS


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds of a process and of its living descendants, to a hundredth of a second."""
    return sum(map(_ticks, descendants(pid))) / _TICKS


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def pss_bytes(pid: int) -> tuple[int, int]:
    """The proportional set size of a process, and its part without mapped files; (0, 0) after the end of the process.

    The share of mapped files falls when any other process maps the same libraries. A reading of both, because each one
    stops the process for milliseconds.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split()[0]: 1024 * int(line.split()[1]) for line in lines[1:]}
    return sizes["Pss:"], sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]


def descriptors(pid: int) -> int:
    """The number of open descriptors of a process; 0 after its end."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
