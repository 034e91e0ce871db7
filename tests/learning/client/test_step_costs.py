"""Guards the cost of local training by counts, because measured times on a busy machine make no reliable test."""

import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client import images as images_module
from fedvtc.learning.client import loop as loop_module
from fedvtc.learning.client.evaluation import has_finite_outputs
from fedvtc.learning.client.image_memory import ImageMemory
from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.client.loop import Learner, make_fabric
from fedvtc.learning.costs import FlopCounts
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.models.classifier import ClassifierModule, build_classifier
from fedvtc.learning.models.weights import load_weights, weights_of

CPU = torch.device("cpu")


class Calls(TorchDispatchMode):
    """Counts the calls of PyTorch's operators."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class CountedArray(np.ndarray):
    """An array that counts its reads."""

    num_reads = 0

    def __getitem__(self, index):
        CountedArray.num_reads += 1
        return np.asarray(self).__getitem__(index)


def calls_of(work):
    with Calls() as calls:
        work()
    return calls.names


def own_images(num_images=10, memory=None):
    pixels = np.random.default_rng(0).integers(256, size=(20, 1, 8, 8), dtype=np.uint8)
    indices_N = np.arange(20)[::-2][:num_images].copy()
    return OwnImages(ImageArrays(pixels.view(CountedArray), np.arange(20)), indices_N, "none", CPU, memory)


def bare_steps(module, batches):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, foreach=True)
    for (images,) in batches:
        for weight in module.parameters():
            weight.grad = None
        module(images).square().mean().backward()
        optimizer.step()


def test_a_step_adds_a_copy_of_each_tensor_of_terms_to_the_operators_of_a_bare_step():
    """The bare step calls a kernel of the optimizer once for all weights, which no loop of PyTorch does on a CPU."""
    batches = [(torch.ones(4, 3),) for _ in range(6)]

    def fit(batches):
        module = nn.Linear(3, 1)
        learner = Learner(make_fabric(CPU), module, torch.optim.SGD(module.parameters(), lr=0.1))

        def loss(images):
            found = module(images).square().mean()
            return {"loss": found, "classification": found, "penalty": module.bias}

        return lambda: learner.fit(batches, loss)

    step = calls_of(fit(batches)) - calls_of(fit(batches[:5]))
    bare = calls_of(lambda: bare_steps(nn.Linear(3, 1), batches)) - calls_of(
        lambda: bare_steps(nn.Linear(3, 1), batches[:5])
    )
    assert step - bare == {"detach": 2, "clone": 2}


def test_small_images_of_an_epoch_are_read_and_converted_at_once():
    images = own_images()
    index_batches = torch.randperm(10).split(3)
    CountedArray.num_reads = 0
    calls = calls_of(lambda: list(images.in_batches(iter(index_batches))))
    assert CountedArray.num_reads == 1
    assert calls["div"] == calls["sub_"] == 1


def test_a_window_has_at_most_the_bytes_of_a_window_and_at_least_one_batch(monkeypatch):
    index_batches = torch.randperm(10).split(3)
    expected = [(own_images().inputs(index_B), index_B) for index_B in index_batches]
    for num_images, num_reads in ((100, 1), (7, 2), (6, 2), (3, 4), (1, 4)):
        monkeypatch.setattr(images_module, "_WINDOW_BYTES", num_images * 4 * 64)
        CountedArray.num_reads = 0
        found = list(own_images().in_batches(index_batches))
        assert CountedArray.num_reads == num_reads
        assert all(
            torch.equal(images, other) and torch.equal(index_B, other_B)
            for (images, index_B), (other, other_B) in zip(found, expected, strict=True)
        )
    assert list(own_images().in_batches([])) == []


def python_calls_of(work):
    """Counts the calls of Python functions and of functions in C."""
    num_calls = 0

    def count(frame, event, argument):
        nonlocal num_calls
        num_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return num_calls


def cnn():
    """Builds a model of the size for which calls of Python count."""
    size = {"num_channels": 1, "image_size": 8, "feature_size": 4, "num_classes": 10}
    return build_classifier("cnn_2x8", **size, optimizer=OptimizerConfig(name="sgd"))


def test_a_step_makes_few_calls_beyond_those_of_a_bare_step():
    """Each call of Python takes about a microsecond, because the arithmetic of a step empties the caches."""
    module = cnn()
    batches = [(torch.ones(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))] * 5
    learner = Learner(make_fabric(CPU), module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)

    def bare(batches):
        for images, labels_B in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(images), labels_B)
            loss.backward()
            optimizer.step()

    def per_step(work):
        work(batches)
        return (python_calls_of(lambda: work(batches)) - python_calls_of(lambda: work(batches[:1]))) / 4

    assert per_step(learner.fit) - per_step(bare) < 10


def test_the_batches_of_an_epoch_make_few_calls_each():
    images = own_images()
    index_batches = [*torch.randperm(10).split(1)]
    list(images.batches(index_batches))
    assert python_calls_of(lambda: list(images.batches(index_batches))) < 15 * len(index_batches)


def test_weights_are_replaced_without_a_walk_through_the_submodules():
    module = cnn()
    arrays = weights_of(module)
    load_weights(module, arrays)
    by_torch = python_calls_of(lambda: module.load_state_dict(dict(module.state_dict())))
    assert python_calls_of(lambda: load_weights(module, arrays)) < by_torch / 2


@pytest.mark.parametrize("change", [{"extra": np.zeros(2)}, {"head.bias": np.zeros((1, 10))}])
def test_weights_of_other_names_or_shapes_are_refused(change):
    """A copy alone would broadcast an array of another shape."""
    module = cnn()
    with pytest.raises(RuntimeError, match=next(iter(change))):
        load_weights(module, {**weights_of(module), **change})


def test_a_term_that_is_a_weight_counts_with_its_value_after_the_step():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    learner = Learner(make_fabric(CPU), module, torch.optim.SGD(module.parameters(), lr=1.0))
    terms = learner.fit([(torch.ones(1, 1),)] * 2, lambda x: {"loss": module(x).sum(), "weight": module.weight})
    assert terms == {"loss": (2.0 + 1.0) / 2, "weight": (1.0 + 0.0) / 2}


def test_a_further_client_needs_no_new_fabric(monkeypatch):
    """A new Fabric searches all installed packages."""
    make_fabric(CPU)
    monkeypatch.setattr(loop_module, "Fabric", None)
    module = ClassifierModule(nn.Flatten(), feature_size=4, num_classes=2, optimizer=OptimizerConfig())
    first, second = make_fabric(CPU), make_fabric(CPU)
    Learner(first, module)
    # Fabric keeps every module that it sets up.
    assert (len(first._callbacks), len(second._callbacks)) == (1, 0)


def test_a_client_with_memory_for_float_images_converts_its_images_once():
    index_batches = torch.randperm(10).split(3)
    expected = [images for images, _ in own_images().in_batches(index_batches)]
    memory = ImageMemory(10 * 4 * 64)
    images, later = own_images(memory=memory), own_images(memory=memory)
    CountedArray.num_reads = 0
    for _ in range(2):
        assert all(map(torch.equal, [batch for batch, _ in images.in_batches(index_batches)], expected))
    assert CountedArray.num_reads == 1
    # No bytes are left for a further client until the first is gone.
    for _ in range(2):
        assert torch.equal(later.inputs(), own_images().inputs())
    del images
    CountedArray.num_reads = 0
    assert torch.equal(later.inputs(), later.inputs())
    assert CountedArray.num_reads == 1


def test_a_model_is_run_for_the_check_of_its_outputs_only_if_a_weight_is_large():
    module, images, num_runs = cnn(), own_images(), []
    module.backbone.register_forward_hook(lambda *_: num_runs.append(1))
    for name, value, finite, runs in (("bias", 99.0, True, 0), ("bias", 101.0, True, 1), ("weight", np.nan, False, 2)):
        getattr(module.head, name).data.view(-1)[0] = value
        assert has_finite_outputs(module, images) is finite
        assert len(num_runs) == runs


def test_the_count_of_operations_adds_three_calls_to_a_step():
    def step():
        return None

    counted = FlopCounts().counter({}, "train", "step")
    counted(2, step)
    assert python_calls_of(lambda: counted(2, step)) - python_calls_of(step) == 1 + 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests a machine without a GPU")
def test_a_step_does_not_search_for_gpus(monkeypatch):
    # As Lightning sets it.
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    loop_module._unused_fabric.cache_clear()
    make_fabric(torch.device("cpu"))
    searches = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: searches.append(1) or 0)
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.Adam([weight]).step()
    assert not searches
