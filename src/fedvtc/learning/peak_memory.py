"""Peak memory of this process and of phases: resident memory, and memory that PyTorch takes on a GPU.

Linux and PyTorch keep one peak that can be restarted. A phase restarts the peak; whatever was read before stays in the
peak of the process and of all phases around.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STATUS = "/proc/self/status"
"""Linux's file on this process; `VmHWM` is its largest resident memory, if the kernel says it."""
CLEAR = "/proc/self/clear_refs"
"""Linux's file that restarts `VmHWM`; some containers forbid to write it, and other systems lack it."""
STATUS_BYTES = 4096
SLACK_BYTES = 2**20


class Peak:
    """A peak of memory since its start, and since the start of each open phase.

    Args:
        read: returns the peak since the last restart, in bytes; None if unknown.
        restart: restarts the peak at the present memory; returns False if that is impossible.
    """

    def __init__(self, read: Callable[[], float | None], restart: Callable[[], bool]) -> None:
        self._read, self._restart = read, restart
        self._total = 0.0
        self._phases: list[float] = []

    def total(self) -> float | None:
        """Returns the peak since the start of the process or `forget`; None if unknown."""
        return max(value, self._total) if (value := self._read()) is not None else None

    def forget(self) -> None:
        """Counts from now on."""
        self._restart()
        self._total = 0.0

    @contextmanager
    def phase(self, peaks: MutableMapping[str, float], name: str) -> Iterator[None]:
        """Raises `peaks[name]` to the peak of the block; changes nothing where a peak cannot be restarted."""
        self._keep()
        is_restarted = self._restart()
        self._phases.append(0.0)
        try:
            yield
        finally:
            is_known = self._keep()
            peak = self._phases.pop()
            if is_restarted and is_known:
                peaks[name] = max(peak, peaks.get(name, 0.0))

    def _keep(self) -> bool:
        value = self._read()
        if value is not None:
            self._total = max(value, self._total)
            self._phases = [max(value, peak) for peak in self._phases]
        return value is not None


class Resident:
    """The resident memory of this process on Linux.

    Between the steps of a client a reading of `/proc/self/status` takes 50 microseconds, one of `getrusage` a quarter.
    But the number of `getrusage` never falls below the memory that this process had before its last `exec`. So
    `getrusage` is read only if both numbers are equal after the first restart.
    """

    def __init__(self) -> None:
        self._is_quick: bool | None = None

    def read(self) -> float | None:
        """Returns the peak since the last restart, in bytes; None on other systems."""
        return _max_rss() * 1024.0 if self._is_quick else _status_bytes()

    def restart(self) -> bool:
        """Restarts the peak; returns False if the system or the container does not allow this."""
        try:
            # Not kept open: after a fork, the file would be that of the parent.
            file = os.open(CLEAR, os.O_WRONLY)
            try:
                os.write(file, b"5")
            finally:
                os.close(file)
        except OSError:
            return False
        if self._is_quick is None:
            self._is_quick = (status := _status_bytes()) is not None and _max_rss() * 1024 <= status + SLACK_BYTES
        return True


def peak_memory_bytes() -> float:
    """Returns the largest resident memory of this process since its start or `restart_peak_memory`, in bytes."""
    if (peak := _RESIDENT.total()) is not None:
        return peak
    return _max_rss() * (1.0 if sys.platform == "darwin" else 1024.0)


def gpu_peak_bytes(device: torch.device) -> float | None:
    """Returns the largest memory that PyTorch has taken on a GPU in this process, as `peak_memory_bytes` counts."""
    return _gpu(device).total()


def restart_peak_memory() -> None:
    """Makes this process count its largest memory from now on, for a second run in the same process.

    Systems other than Linux go on to count from the start of the process.
    """
    for peak in (_RESIDENT, *_GPUS.values()):
        peak.forget()


@contextmanager
def measured_memory(peaks: MutableMapping[str, float], name: str, device: torch.device | None = None) -> Iterator[None]:
    """Raises `memory/NAME` to the largest resident memory during the block, and `memory/gpu/NAME` on a GPU.

    A value that the system cannot tell is absent.
    """
    with _RESIDENT.phase(peaks, f"memory/{name}"):
        if device is None or device.type != "cuda":
            yield
        else:
            with _gpu(device).phase(peaks, f"memory/gpu/{name}"):
                yield


def _max_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status_bytes() -> float | None:
    try:
        file = os.open(STATUS, os.O_RDONLY)
        try:
            content = os.read(file, STATUS_BYTES)
        finally:
            os.close(file)
        _, _, rest = content.partition(b"\nVmHWM:")
        return int(rest[: rest.index(b"kB")]) * 1024.0
    except (OSError, ValueError):
        return None


def _gpu(device: torch.device) -> Peak:
    if device not in _GPUS:
        _GPUS[device] = Peak(partial(_gpu_bytes, device), partial(_restart_gpu, device))
    return _GPUS[device]


def _gpu_bytes(device: torch.device) -> float | None:
    import torch

    # `max_memory_allocated` reads the same number, and spends ten times the time on all others.
    stats = torch.cuda.memory_stats_as_nested_dict(device)
    return float(stats["allocated_bytes"]["all"]["peak"]) if stats else None


def _restart_gpu(device: torch.device) -> bool:
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    return True


_LINUX = Resident()
_RESIDENT = Peak(_LINUX.read, _LINUX.restart)
_GPUS: dict[torch.device, Peak] = {}
