"""What the clients of a process compute on: a device, and threads."""

from collections.abc import Sequence
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import actor_needs


def actor_device(num_gpus: float, given: Sequence[str]) -> torch.device:
    """The device of an actor. Ray shows it no GPU but those that it gives, so its own is number 0.

    Args:
        num_gpus: that it has reserved; a share of one is all the memory that it takes there.
        given: the GPUs that Ray gave it.

    Raises:
        ClusterError: it has reserved a GPU, and there is none for it.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    if not given:
        raise ClusterError("placement.accelerator: Ray gave an actor no GPU. Set placement.accelerator=cpu.")
    return _gpu(num_gpus)


def inline_device(placement: PlacementConfig) -> torch.device:
    """The device of all clients where they live in this process.

    Raises:
        ClusterError: it is to be a GPU, and there is none.
    """
    needs = actor_needs(placement, has_gpus=torch.cuda.is_available())
    return _gpu(needs.num_gpus) if needs.num_gpus else torch.device("cpu")


def limit_threads(num_threads: int) -> Any:
    """Holds PyTorch and NumPy's BLAS to this many threads; `restore_original_limits` of the result frees the BLAS."""
    torch.set_num_threads(num_threads)
    return threadpool_limits(num_threads, user_api="blas")


def gpu_names() -> list[str]:
    """What the GPUs of this machine are called; none where PyTorch finds none that it can use."""
    try:
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    # Whatever is wrong with a driver: those who need it will say.
    except Exception:
        return []


def _gpu(share: float) -> torch.device:
    if not torch.cuda.is_available():
        what = "PyTorch sees no GPU (its driver, or a build for CPUs)"
        raise ClusterError(f"placement.accelerator: {what}. Set placement.accelerator=cpu.")
    device = torch.device("cuda", 0)
    if share < 1:
        # Ray counts shares and does not hold anybody to them: this process runs out of memory before its neighbour.
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device
