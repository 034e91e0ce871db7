"""Device, threads and allocator of the clients of one process."""

import ctypes
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError, ConfigError
from fedvtc.runtime.placement import actor_needs

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of two settings of glibc, from its malloc.h."""
KEPT_BYTES = 2**27
"""Freed memory at the end of a heap that a process keeps."""
HEAP_BYTES = 2**25
"""Blocks of this size and more get pages of their own; the largest value that glibc takes."""


def actor_device(num_gpus: float, given: Sequence[str]) -> torch.device:
    """Returns the device of an actor; Ray hides all other GPUs, so the actor's GPU is number 0.

    Args:
        num_gpus: GPUs that the actor reserves; a share below 1 also limits the memory that the actor may take.
        given: ids of the GPUs that Ray gave to the actor.

    Raises:
        ClusterError: the actor reserves a GPU, and Ray or PyTorch gives none.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    if not given:
        raise ClusterError("placement.accelerator: Ray gave an actor no GPU. Set placement.accelerator=cpu.")
    return _gpu(num_gpus)


def inline_device(placement: PlacementConfig) -> torch.device:
    """Returns the device of the clients of this process.

    Raises:
        ClusterError: the config asks for a GPU, and PyTorch sees none.
    """
    needs = actor_needs(placement, has_gpus=torch.cuda.is_available())
    return _gpu(needs.num_gpus) if needs.num_gpus else torch.device("cpu")


def limit_threads(num_threads: int) -> Any:
    """Limits threads of PyTorch and of NumPy's BLAS; `restore_original_limits` of the result lifts the BLAS limit."""
    torch.set_num_threads(num_threads)
    return threadpool_limits(num_threads, user_api="blas")


def keep_freed_memory() -> None:
    """Makes glibc keep memory that a step frees for the next step; does nothing with another C library.

    Else glibc gives the pages of a step's activations back to the system each time, and the system clears them anew for
    the next step: thousands of page faults a step, a tenth of the CPU time of small CNNs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, HEAP_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


class SharedThreadLimit:
    """The limit of threads of this process, shared by the inline pools of all its threads.

    PyTorch counts threads for each thread of Python, but NumPy's BLAS has one number for the process. The end of one
    pool must not lift the limit of another pool, whose sums would then be formed in another order.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._holders: Counter[int] = Counter()
        self._num_threads = 0
        self._blas: Any = None

    @contextmanager
    def held(self, num_threads: int) -> Iterator[None]:
        """Limits threads until the block ends, and longer while another thread holds the limit.

        Raises:
            ConfigError: another thread holds another limit.
        """
        before, holder = torch.get_num_threads(), threading.get_ident()
        with self._changing:
            if self._holders.keys() - {holder} and num_threads != self._num_threads:
                fix = "Give all federations of a process one number, or run each in a process of its own."
                what = f"another federation of this process has {self._num_threads}, not {num_threads}"
                raise ConfigError([f"placement.threads_per_actor: {what}. {fix}"])
            self._holders[holder] += 1
            self._num_threads = num_threads
            blas = limit_threads(num_threads)
            self._blas = self._blas or blas
        try:
            yield
        finally:
            with self._changing:
                self._holders -= Counter([holder])
                if not self._holders:
                    self._blas.restore_original_limits()
                    self._blas = None
            # After the BLAS limits, which restore PyTorch's threads to the number that `limit_threads` had set.
            torch.set_num_threads(before)


PROCESS_THREADS = SharedThreadLimit()
"""The limit of threads of this process."""


def gpu_names() -> list[str]:
    """Returns the names of the GPUs that PyTorch can use."""
    try:
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    # A broken driver must not stop a run on CPUs; a run that needs a GPU reports the fault.
    except Exception:
        return []


def _gpu(share: float) -> torch.device:
    if not torch.cuda.is_available():
        what = "PyTorch sees no GPU (no driver, or a build of PyTorch for CPUs)"
        raise ClusterError(f"placement.accelerator: {what}. Set placement.accelerator=cpu.")
    device = torch.device("cuda", 0)
    if share < 1:
        # Ray counts shares but does not enforce them: without this limit, another actor could run out of memory.
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device
