"""Memory and disk space of a run, estimated from the models of its clients."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedvtc.config.schema import Config
from fedvtc.errors import FAILURES, ConfigError, reason
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data import Dataset
from fedvtc.learning.methods import Method, as_result
from fedvtc.learning.models import parameter_count
from fedvtc.learning.models.live_bytes import peak_bytes
from fedvtc.learning.population import ClientSpec

PROCESS_BYTES = 500_000_000
"""Memory of a process of its own after importing torch and lightning, before it builds a client."""
LIBRARIES_BYTES = 350_000_000
"""Memory of the libraries' code, which all processes of a node share."""
KERNELS = 1.5
"""Factor for the working memory inside of PyTorch's kernels and between blocks of memory, as measured on CPUs."""


@dataclass(frozen=True)
class ClientBytes:
    """Memory and disk space of one client.

    Attributes:
        parameters: trained parameters of the classifier.
        state: memory of all modules with gradients and two moments of their optimizers.
        saved: disk space of the client's state in a checkpoint.
        working: memory of each step, by the config key that makes the step smaller.
    """

    parameters: int
    state: int
    saved: int
    working: Mapping[str, int]

    @property
    def largest_step(self) -> str:
        """Config key of the largest step."""
        return max(self.working, key=self.working.__getitem__)


@dataclass(frozen=True)
class Footprint:
    """Memory of all processes of a run.

    Attributes:
        processes: bytes of the processes themselves and of the shared libraries.
        images: bytes of the images, and of those that are kept as floats.
        models: bytes of the clients' modules and optimizers, and of the server's state.
        steps: bytes of the largest step of each process.
        largest_step: config key of the largest of the steps.
        actor: bytes of the largest actor; 0 without actors.
    """

    processes: int
    images: int
    models: int
    steps: int
    largest_step: str
    actor: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.processes + self.images + self.models + self.steps


def clients_by_backbone(
    config: Config, dataset: Dataset, specs: Sequence[ClientSpec], method: Method[Any]
) -> dict[str, ClientBytes]:
    """Builds one client of each backbone and measures the client on shapes alone.

    Raises:
        ConfigError: a backbone of the user's own does not work on shapes alone.
    """
    first = {spec.backbone: spec for spec in reversed(specs)}
    order = dict.fromkeys(spec.backbone for spec in specs)
    return {backbone: _client_bytes(config, dataset, first[backbone], method) for backbone in order}


def footprint(
    bytes_K: Sequence[ClientBytes],
    hosted: Sequence[Sequence[int]],
    image_bytes: int,
    float_bytes: Sequence[int],
    server_bytes: int,
    *,
    inline: bool,
    state_limit: int | None = None,
) -> Footprint:
    """Adds up the memory of a run.

    Args:
        bytes_K: memory of each client.
        hosted: clients by process.
        image_bytes: memory of the images.
        float_bytes: memory of the images that each process keeps as floats.
        server_bytes: size of the server's state and broadcast.
        inline: True if the coordinator hosts the clients itself.
        state_limit: most bytes of the states of idle clients of a process; None without a limit.
    """
    largest = [max((bytes_K[client] for client in clients), key=_step_bytes) for clients in hosted]
    states = [_state_bytes([bytes_K[client].state for client in clients], state_limit) for clients in hosted]
    parts = zip(states, float_bytes, largest, strict=True)
    actors = [PROCESS_BYTES + state + floats + _step_bytes(most) for state, floats, most in parts]
    return Footprint(
        processes=(1 if inline else len(hosted) + 1) * PROCESS_BYTES + LIBRARIES_BYTES,
        # The coordinator has the images too, beside Ray's object store.
        images=image_bytes * (1 if inline else 2) + sum(float_bytes),
        models=sum(states) + server_bytes,
        steps=sum(map(_step_bytes, largest)),
        largest_step=max(largest, key=_step_bytes).largest_step,
        actor=0 if inline else max(actors),
    )


def _state_bytes(states: Sequence[int], limit: int | None) -> int:
    """Returns the memory of the states of one process: within the limit, and the state of the client at work."""
    return sum(states) if limit is None else min(sum(states), limit + max(states))


def _step_bytes(client: ClientBytes) -> int:
    return int(KERNELS * client.working[client.largest_step])


def _client_bytes(config: Config, dataset: Dataset, spec: ClientSpec, method: Method[Any]) -> ClientBytes:
    client = FederatedClient(spec, config, dataset, torch.device("cpu"))
    method.prepare(client)
    modules = list(client.modules.values())
    trained = sum(map(parameter_count, modules))
    fixed = sum(map(_all_bytes, modules)) - 4 * trained
    classifier = copy.deepcopy(client.classifier).to("meta")
    shape = (dataset.num_channels, dataset.image_size, dataset.image_size)

    def train() -> None:
        classifier.train()(torch.empty(config.training.batch_size, *shape)).sum().backward()

    @torch.no_grad()
    def evaluate() -> None:
        num_images = min(config.evaluate.batch_size, max(len(dataset.test.labels_N), len(spec.indices_N)))
        classifier.eval()(torch.empty(num_images, *shape))

    try:
        working = {"training.batch_size": peak_bytes(train), "evaluate.batch_size": peak_bytes(evaluate)}
    except FAILURES as error:
        what = f"{spec.backbone} fails on tensors without content (device meta), so that its memory is unknown"
        fix = "Register tensors of the module as buffers, and let no step depend on values."
        raise ConfigError([f"population.backbones: {what} ({reason(error)}). {fix}"]) from None
    for parameter in classifier.parameters():
        parameter.grad = None
    own = method.working_bytes(classifier, samples_per_class=config.evaluate.samples_per_class)
    own = as_result(own, Mapping, method, "working_bytes")
    return ClientBytes(
        parameters=parameter_count(client.classifier),
        # Weights, gradients and two moments of 4 bytes; the gradients are not saved.
        state=16 * trained + fixed,
        saved=12 * trained + fixed,
        working={**working, **own},
    )


def _all_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
