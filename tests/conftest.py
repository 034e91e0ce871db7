"""Fixtures of a small federation for unit tests: three classes of 8 x 8 images, three clients, this process only."""

import os

# Set before PyTorch is imported: threads slow tiny models down, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import importlib.util
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fedvtc.runtime.heavy_imports import fast_imports

with fast_imports():
    import lightning  # noqa: F401
    import torch

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
from fedvtc.learning.server import Server

FEATURE_SIZE = 6


def pytest_addoption(parser):
    parser.addoption("--update-messages", action="store_true", help="write tests/golden/messages.txt")


def pytest_configure(config):
    # `nohup` passes an ignored SIGHUP on to all processes of the tests, some of which send the signal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Until all tests are collected: the imports of PyTorch and Lightning create a million objects that stay.
    gc.disable()
    spec = importlib.util.spec_from_file_location("golden_messages", Path(__file__).parent / "golden/messages.py")
    config.golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config.golden)
    update = config.getoption("--update-messages")
    if update and (hasattr(config, "workerinput") or config.getoption("numprocesses", None)):
        raise pytest.UsageError("--update-messages cannot run with -n, because all tests write one file")
    config.messages = config.golden.Messages(update)


def pytest_collection_finish(session):
    gc.enable()


def pytest_runtest_setup(item):
    # Sums, and so recorded bits, depend on the number of threads that a test before may have left.
    torch.set_num_threads(1)


def pytest_unconfigure(config):
    if hasattr(config, "messages"):
        config.messages.save()


@pytest.fixture
def golden(request, tmp_path):
    """A function that compares a message, or the output of a command, with tests/golden/messages.txt.

    `golden(text, {"4711": "PID"})` replaces the parts that differ from run to run. The folder of the test is always
    replaced.
    """

    def check(text, replaced=()):
        replaced = {str(tmp_path): "TMP", **dict(replaced)}
        request.config.messages.check(request.node.nodeid, request.config.golden.normal(str(text), replaced))

    return check


@pytest.fixture
def no_room():
    """A context that limits files to 100 bytes, less than any state, shard or manifest, as on a full disk."""

    @contextmanager
    def limited():
        before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture(scope="session")
def keys_of():
    """A function that returns the keys of a message: the text before the first colon of each line."""

    def keys(text):
        return [line.removeprefix("fedvtc: ").partition(": ")[0] for line in str(text).splitlines()]

    return keys


def _images(labels_N, seed):
    """Noise with two bright rows, whose height depends on the class; read-only like arrays of Ray's object store."""
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
    """A function that makes a folder with the tiny data set in tiny.npz."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        train, test = tiny_dataset.train, tiny_dataset.test
        arrays = {"x_train": train.images_NCHW, "y_train": train.labels_N}
        np.savez(folder / "tiny.npz", **arrays, x_test=test.images_NCHW, y_test=test.labels_N)
        return folder

    return make


@pytest.fixture(scope="module")
def tiny_words(tiny_folder):
    """Words of `fedvtc run`: a folder of the test file's own for run folders, and the tiny data set."""
    folder = tiny_folder("runs")
    return [f"run.output_dir={folder}", f"data.path={folder / 'tiny.npz'}"]


@pytest.fixture(scope="session")
def two_clients():
    """Words of `fedvtc run`: a round of FedVTC on two clients of 8 tiny images, in one process."""
    return [
        "placement.pool=inline",
        "run.rounds=1",
        "run.name=mine",
        "data.name=npz",
        "population.num_clients=2",
        "population.backbones=[{name: cnn_2x8, share: 1}]",
        "population.feature_size=6",
        "partition.alpha=100",
        "partition.images_per_client=8",
        "method.generator.epochs=1",
        "method.generator.width=4",
        "method.finetune.epochs=1",
        "method.finetune.images_per_class=4",
    ]


@pytest.fixture(scope="session")
def tiny_specs():
    """Client 0 has 5 images each of classes 0 and 1, client 1 has 14 of all classes, client 2 has 3 of class 2."""
    from fedvtc.learning.population import ClientSpec

    parts = ([0, 1, 3, 4, 6, 7, 9, 10, 12, 13], range(15, 29), [2, 5, 8])
    return [ClientSpec(client, "cnn_2x8", np.array(part, dtype=np.int64)) for client, part in enumerate(parts)]


@pytest.fixture(scope="session")
def tiny_config():
    """A function that makes a config; arguments replace sections."""

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
    """A function that makes a fast FedVTCConfig; `generator`, `finetune` and `statistics` replace keys."""
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
    """A function that makes one client; `indices` replaces the images of the client."""
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
    """A round loop without trackers: runs the two halves of a method one after the other."""

    def __init__(self, method, clients) -> None:
        self.method, self.clients = method, clients

    def upload(self, number, broadcast):
        client = self.clients[number]
        client.begin_round(broadcast.round + 1)
        broadcast = broadcast.seen_by(client.backbone_name)
        self.method.receive(client, broadcast)
        return self.method.client_round(client, broadcast)

    def round(self, state=None, broadcast=None, participants=(0, 1, 2)):
        """Runs the round after `broadcast`, by default the first round.

        Returns:
            The uploads, the server's state and the next broadcast.
        """
        broadcast = broadcast or self.method.start()[1]
        uploads = [self.upload(number, broadcast) for number in participants]
        server = Server(self.method.task.seed, broadcast.round + 1)
        state, broadcast = self.method.server_round(state or {}, uploads, server)
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
    """Options of a Lightning Trainer that runs on the CPU and writes no files."""
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
