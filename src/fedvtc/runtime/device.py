"""Device and threads of the clients of one process."""

from collections.abc import Sequence
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import actor_needs


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
