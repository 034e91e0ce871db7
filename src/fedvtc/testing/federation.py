"""A tiny federation in this process: four clients, 8 x 8 images of three classes, two rounds.

Client 0 holds every class, client 1 one image, client 2 one class. In the second round nobody holds class 2.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

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
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Method, ServerState, Task, as_step, build, method_class, names
from fedvtc.learning.population import ClientSpec
from fedvtc.learning.server import Server
from fedvtc.runtime.host import ClientHost
from fedvtc.storage.checkpoints.trees import arrays_to_tensors, read_tree, tensors_to_arrays, write_tree
from fedvtc.testing.watch import Watch

BACKBONE = "cnn_2x8"
PARTS = ((0, 1, 2, 3, 4, 5), (6,), (7, 10, 13), (9, 11, 12, 14, 15))
"""Images of each client; image i has class i modulo 3."""
PARTICIPANTS = ((0, 1, 2, 3), (1, 2))
LOST_CLASS = 2

Packing = Sequence[Sequence[int]]
"""The clients of each process."""
ONE_PROCESS: Packing = ((0, 1, 2, 3),)


@dataclass
class Results:
    """Everything that a run produces: after each round and exchange, and at the end."""

    states: list[ServerState] = field(default_factory=list)
    broadcasts: list[Broadcast] = field(default_factory=list)
    uploads: list[list[Upload]] = field(default_factory=list)
    scalars: list[Mapping[str, float]] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)
    trained: list[Mapping[str, str]] = field(default_factory=list)
    """Digests of each client's modules and memory after the last round, by name."""

    def digest(self) -> str:
        """Returns the SHA-256 of states, messages and clients."""
        sent = [[upload.payload for upload in uploads] for uploads in self.uploads]
        received = [[broadcast.payload, broadcast.groups] for broadcast in self.broadcasts]
        return digest([self.states, sent, received, self.clients])


class TinyFederation:
    """A method and its clients.

    Args:
        method: the class of the method.
        config: the keys of the method.

    Raises:
        AssertionError: the class cannot be imported, or the config has problems.
    """

    def __init__(self, method: type[Method[Any]], config: MethodConfig) -> None:
        if config.name not in names() or method_class(config.name) is not method:
            assert "<locals>" not in method.__qualname__, f"{method.__qualname__} must be a class of a module"
            config = replace(config, name=f"{method.__module__}:{method.__qualname__}")
        self.config = Config(
            run=RunConfig(seed=5, rounds=len(PARTICIPANTS)),
            population=PopulationConfig(len(PARTS), [BackboneShare(BACKBONE, 1.0)], feature_size=6),
            training=TrainingConfig(batch_size=4, optimizer=OptimizerConfig(lr=0.01)),
            evaluate=EvaluateConfig(batch_size=8),
            method=config,
        )
        problems = config.problems(self.config)
        assert not problems, problems[0]
        self.dataset = Dataset("tiny", _images(16, 0), _images(8, 1), num_classes=3, class_names=("a", "b", "c"))
        self.method = build(config, Task.of(self.config, self.dataset))

    def server(self, round: int) -> Server:
        """Returns the server's tools in a round."""
        return Server(self.config.run.seed, round)

    def hosts(self, packing: Packing = ONE_PROCESS) -> dict[int, ClientHost]:
        """Returns the host of each client, one host for each process."""
        hosts: dict[int, ClientHost] = {}
        for group in packing:
            specs = [ClientSpec(client, BACKBONE, np.array(PARTS[client])) for client in group]
            hosts |= dict.fromkeys(group, ClientHost(self.config, self.dataset, specs, torch.device("cpu")))
        return hosts

    def run(
        self,
        packing: Packing = ONE_PROCESS,
        *,
        restarts: bool = False,
        evaluates: bool = False,
        ends: bool = True,
    ) -> Results:
        """Runs all rounds, the closing exchange and the last step.

        Args:
            packing: the clients of each process.
            restarts: True replaces all processes after each round, by way of checkpoints.
            evaluates: True evaluates every client after each round.
            ends: False leaves out the closing exchange and the last step.
        """
        found, hosts = Results(), self.hosts(packing)
        state, broadcast = as_step(self.method.start(), self.method, "start")
        with Watch(lambda: modules_of(hosts)).on():
            for round, participants in enumerate(PARTICIPANTS, start=1):
                uploads = each(hosts, participants, "run_round", broadcast)
                state, broadcast = self._serve(found, state, uploads, round)
                if evaluates:
                    each(hosts, range(len(PARTS)), "evaluate", broadcast)
                if restarts:
                    hosts, state, broadcast = self._restarted(hosts, packing, state, broadcast)
            states = [hosts[client]._clients.use(client).state_dict() for client in range(len(PARTS))]
            found.trained = [{name: digest(part) for name, part in state.items()} for state in states]
            if not ends:
                return found
            broadcast = self.method.last_broadcast(state, broadcast)
            found.broadcasts.append(broadcast)
            if self.method.has_closing:
                uploads = each(hosts, range(len(PARTS)), "closing_upload", broadcast)
                server = self.server(broadcast.round + 1)
                broadcast = replace(self.method.closing_server(state, iter(uploads), server), round=server.round)
                found.uploads.append(uploads)
                found.broadcasts.append(broadcast)
            each(hosts, range(len(PARTS)), "finish", broadcast)
        found.clients = [hosts[client]._clients.use(client).state_dict() for client in range(len(PARTS))]
        return found

    def _serve(
        self, found: Results, state: ServerState, uploads: list[Upload], round: int
    ) -> tuple[ServerState, Broadcast]:
        server, payloads = self.server(round), [upload.payload for upload in uploads]
        before = digest([state, payloads])
        after, merged = as_step(self.method.server_round(state, iter(uploads), server), self.method, "server_round")
        broadcast = replace(merged, round=round)
        assert digest([state, payloads]) == before, "server_round changes its state or an upload in place"
        found.states.append(after)
        found.broadcasts.append(broadcast)
        found.uploads.append(uploads)
        found.scalars.append(server.scalars)
        return after, broadcast

    def _restarted(
        self, hosts: Mapping[int, ClientHost], packing: Packing, state: ServerState, broadcast: Broadcast
    ) -> tuple[dict[int, ClientHost], ServerState, Broadcast]:
        new = self.hosts(packing)
        for client, host in hosts.items():
            new[client]._clients.use(client).load_state_dict(_stored(host._clients.use(client).state_dict()))
        server = _stored(arrays_to_tensors([state, broadcast.payload, broadcast.groups]))
        state, payload, groups = tensors_to_arrays(server)
        return new, state, Broadcast(broadcast.round, payload, groups)


def each(hosts: Mapping[int, ClientHost], clients: Sequence[int], task: str, broadcast: Broadcast) -> list[Any]:
    """Runs a task of the host on each client, one process after another; returns the results in client order."""
    for payload in (broadcast.payload, *broadcast.groups.values()):
        for arrays in payload.values():
            for array in arrays.values():
                array.flags.writeable = False
    results = {client: getattr(host, task)(client, broadcast) for client, host in hosts.items() if client in clients}
    return [results[client] for client in clients]


def modules_of(hosts: Mapping[int, ClientHost]) -> dict[str, nn.Module]:
    """Returns the modules of all clients, by a name for messages."""
    return {
        f"{name} of client {client}": module
        for client, host in hosts.items()
        for name, module in host._clients.use(client).modules.items()
    }


def digest(tree: Any) -> str:
    """Returns the SHA-256 of nested mappings and lists of arrays, tensors and plain values."""
    sha = hashlib.sha256()
    _update(sha, tree)
    return sha.hexdigest()


def _update(sha: Any, tree: Any) -> None:
    if isinstance(tree, Mapping):
        for key in sorted(tree, key=str):
            sha.update(f"{key}:".encode())
            _update(sha, tree[key])
    elif isinstance(tree, list | tuple):
        for part in tree:
            _update(sha, part)
    elif isinstance(tree, np.ndarray | torch.Tensor):
        array = np.asarray(tree)
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    else:
        sha.update(repr(tree).encode())


def _stored(tree: Any) -> Any:
    write_tree(tree, file := io.BytesIO())
    return read_tree(file.getvalue())


def _images(number: int, seed: int) -> ImageArrays:
    """Noise with two bright rows, whose height is the class."""
    labels_N = np.arange(number, dtype=np.int64) % 3
    images_NCHW = np.random.default_rng(seed).integers(0, 60, (number, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(images_NCHW, labels_N, strict=True):
        image[0, 2 * label : 2 * label + 2] += 180
    return ImageArrays(images_NCHW, labels_N)
