import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.device import actor_device, inline_device, keep_freed_memory

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tests a machine without a GPU")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_an_actor_that_reserves_no_gpu_computes_on_the_cpu():
    assert actor_device(0.0, ["0"]) == torch.device("cpu")
    assert inline_device(PlacementConfig(accelerator="cpu")) == torch.device("cpu")
    assert inline_device(PlacementConfig(gpus_per_actor=0.0)) == torch.device("cpu")


def test_an_actor_without_its_reserved_gpu_is_an_error(golden, keys_of):
    with pytest.raises(ClusterError) as raised:
        actor_device(0.5, [])
    assert keys_of(raised.value) == ["placement.accelerator"]
    golden(raised.value)


@without_gpu
def test_a_gpu_that_pytorch_does_not_see_is_an_error(golden, keys_of):
    with pytest.raises(ClusterError) as raised:
        actor_device(1.0, ["0"])
    assert keys_of(raised.value) == ["placement.accelerator"]
    golden(raised.value)
    for keys in ({"accelerator": "cuda"}, {"gpus_per_actor": 0.5}):
        with pytest.raises(ClusterError) as inline:
            inline_device(PlacementConfig(**keys))
        assert str(inline.value) == str(raised.value)
    assert inline_device(PlacementConfig()) == torch.device("cpu")


@with_gpu
def test_a_share_of_a_gpu_limits_its_memory():
    assert inline_device(PlacementConfig()) == torch.device("cuda", 0)
    device = actor_device(0.25, ["3"])
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        torch.empty(int(total * 0.2), dtype=torch.uint8, device=device)
        torch.cuda.empty_cache()
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(total * 0.3), dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of a thread")
def test_a_step_gets_the_pages_that_the_step_before_freed():
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.GroupNorm(4, 16), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 14 * 14, 10),
        ),
    )
    images = torch.zeros(64, 1, 28, 28)

    def faults(num_steps):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for _ in range(num_steps):
            model(images).sum().backward()
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    keep_freed_memory()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(faults, 5).result()
        # The first activation of 64 x 16 x 28 x 28 floats has 784 pages.
        assert thread.submit(faults, 20).result() < 20 * 784
