"""A federation small enough for unit tests: three classes of 8 x 8 images and three clients, in this process."""

import os

# Before PyTorch is imported: its threads cost tiny models more than they give, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.schema import (
    BackboneShare,
    Config,
    EvaluateConfig,
    MethodConfig,
    OptimizerConfig,
    PopulationConfig,
    RunConfig,
    TrainingConfig,
)
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.exchange.messages import Broadcast

FEATURE_SIZE = 6


def pytest_addoption(parser):
    parser.addoption("--update-messages", action="store_true", help="write tests/golden/messages.txt anew")


def pytest_configure(config):
    spec = importlib.util.spec_from_file_location("golden_messages", Path(__file__).parent / "golden/messages.py")
    config.golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config.golden)
    update = config.getoption("--update-messages")
    if update and (hasattr(config, "workerinput") or config.getoption("numprocesses", None)):
        raise pytest.UsageError("--update-messages goes without -n, for the tests write one file")
    config.messages = config.golden.Messages(update)


def pytest_unconfigure(config):
    if hasattr(config, "messages"):
        config.messages.save()


@pytest.fixture
def golden(request, tmp_path):
    """Holds a message, or what a command printed, against tests/golden/messages.txt.

    `golden(text, {"4711": "PID"})` replaces what differs from run to run; the test's own folder is replaced already.
    """

    def check(text, replaced=()):
        replaced = {str(tmp_path): "TMP", **dict(replaced)}
        request.config.messages.check(request.node.nodeid, request.config.golden.normal(str(text), replaced))

    return check


@pytest.fixture(scope="session")
def keys_of():
    """A function: the keys of a message, that is what stands before the first colon of each line."""

    def keys(text):
        return [line.removeprefix("fedvtc: ").partition(": ")[0] for line in str(text).splitlines()]

    return keys


def _images(labels_N, seed):
    """Noise, and two bright rows where the class says; read-only, as arrays out of Ray's object store are."""
    rng = np.random.default_rng(seed)
    images_NCHW = rng.integers(0, 60, (len(labels_N), 1, 8, 8), dtype=np.uint8)
    for image, label in zip(images_NCHW, labels_N, strict=True):
        image[0, 2 * label : 2 * label + 2] += 180
    images_NCHW.flags.writeable = False
    return ImageArrays(images_NCHW, labels_N)


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    train, test = np.arange(36, dtype=np.int64) % 3, np.arange(15, dtype=np.int64) % 3
    return Dataset("tiny", _images(train, 0), _images(test, 1), num_classes=3, class_names=("a", "b", "c"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_dataset):
    """A new folder with the tiny data set in its tiny.npz."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        train, test = tiny_dataset.train, tiny_dataset.test
        arrays = {"x_train": train.images_NCHW, "y_train": train.labels_N}
        np.savez(folder / "tiny.npz", **arrays, x_test=test.images_NCHW, y_test=test.labels_N)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_specs():
    """Client 0 holds 5 images each of classes 0 and 1; client 1 holds 14, of all; client 2 holds 3 of class 2."""
    from fedvtc.learning.population import ClientSpec

    parts = ([0, 1, 3, 4, 6, 7, 9, 10, 12, 13], range(15, 29), [2, 5, 8])
    return [ClientSpec(client, "cnn_2x8", np.array(part, dtype=np.int64)) for client, part in enumerate(parts)]


@pytest.fixture(scope="session")
def tiny_config():
    """Makes a config; sections may be replaced."""

    def make(method: MethodConfig | None = None, **sections) -> Config:
        defaults = {
            "run": RunConfig(seed=3),
            "population": PopulationConfig(3, [BackboneShare("cnn_2x8", 1.0)], feature_size=FEATURE_SIZE),
            "training": TrainingConfig(epochs=1, batch_size=4, optimizer=OptimizerConfig(lr=0.01)),
            "evaluate": EvaluateConfig(batch_size=4),
            "method": method or MethodConfig(name="local"),
        }
        return Config(**(defaults | sections))

    return make


@pytest.fixture(scope="session")
def tiny_fedvtc():
    """Makes a FedVTCConfig of small work; `generator`, `finetune` and `statistics` take the keys that change."""
    from fedvtc.learning.methods.fedvtc import FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig

    def make(*, generator=(), finetune=(), statistics=(), **keys) -> FedVTCConfig:
        small_generator = {"epochs": 1, "batch_size": 8, "width": 4, "dm_samples": 2}
        small_finetune = {"epochs": 1, "images_per_class": 4, "batch_size": 8}
        return FedVTCConfig(
            **keys,
            generator=GeneratorConfig(**(small_generator | dict(generator))),
            finetune=FinetuneConfig(**(small_finetune | dict(finetune))),
            statistics=StatisticsConfig(**dict(statistics)),
        )

    return make


@pytest.fixture(scope="session")
def make_client(tiny_dataset, tiny_specs, tiny_config):
    """Makes one client; `indices` replaces the images it holds."""
    import torch

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods import Task, build
    from fedvtc.learning.population import ClientSpec

    def make(number=0, *, method=None, indices=None, **sections) -> FederatedClient:
        config, spec = tiny_config(method, **sections), tiny_specs[number]
        if indices is not None:
            spec = ClientSpec(spec.client, spec.backbone, np.array(indices, dtype=np.int64))
        client = FederatedClient(spec, config, tiny_dataset, torch.device("cpu"))
        build(config.method, Task.of(config, tiny_dataset)).prepare(client)
        client.begin_round(1)
        return client

    return make


class TinyFederation:
    """The round loop without trackers: every method's two halves, one after the other."""

    def __init__(self, method, clients) -> None:
        self.method, self.clients = method, clients

    def upload(self, number, broadcast):
        self.clients[number].begin_round(broadcast.round + 1)
        return self.method.client_round(self.clients[number], broadcast)

    def round(self, state=None, broadcast=None, participants=(0, 1, 2)):
        """The uploads of the round after `broadcast`, and what the server makes of them."""
        broadcast = broadcast or Broadcast()
        uploads = [self.upload(number, broadcast) for number in participants]
        state, broadcast = self.method.server_round(state or {}, uploads)
        return uploads, state, broadcast


@pytest.fixture(scope="session")
def tiny_federation(tiny_dataset, tiny_config, make_client):
    """Makes a `TinyFederation` of three clients with the method of a config; `indices` are the images of each."""
    from fedvtc.learning.methods import Task, build

    def make(method: MethodConfig, indices=None, **sections) -> TinyFederation:
        config = tiny_config(method, **sections)
        clients = [make_client(number, method=method, indices=indices, **sections) for number in range(3)]
        return TinyFederation(build(method, Task.of(config, tiny_dataset)), clients)

    return make


@pytest.fixture(scope="session")
def quiet():
    """Options of a Trainer on the CPU that writes nothing."""
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
