"""The clients that one process hosts, and the tasks a coordinator may ask of each.

Plain Python: a pool calls it directly, or in a Ray actor.
"""

import copy
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedvtc.client import ClientSpec, FederatedClient
from fedvtc.config.schema import Config
from fedvtc.data import Dataset
from fedvtc.errors import ClientError
from fedvtc.messages import Broadcast, Upload, find_non_finite
from fedvtc.methods import Method, Task, build


def task_of(config: Config, dataset: Dataset) -> Task:
    """The sizes that config and data agree on."""
    return Task(
        num_classes=dataset.num_classes,
        num_channels=dataset.num_channels,
        image_size=dataset.image_size,
        feature_size=config.population.feature_size,
        seed=config.run.seed,
    )


class ClientHost:
    """Clients in one process, one at work at a time.

    Args:
        config: of the federation.
        dataset: arrays that may be shared with other processes; only read.
        specs: the clients to host.
        device: where they compute.
    """

    def __init__(self, config: Config, dataset: Dataset, specs: Sequence[ClientSpec], device: torch.device) -> None:
        self._dataset = dataset
        self._method: Method[Any] = build(config.method, task_of(config, dataset))
        self._clients: dict[int, FederatedClient] = {}
        for spec in specs:
            client = FederatedClient(spec, config, dataset, device)
            self._method.prepare(client)
            self._clients[spec.client] = client

    def run_round(self, client_id: int, broadcast: Broadcast) -> Upload:
        """The client's half of the round after the broadcast's.

        Raises:
            ClientError: it failed, or would have uploaded something that is not finite.
        """
        client = self._clients[client_id]
        client.begin_round(broadcast.round + 1)
        began_s = time.perf_counter()
        upload = self._method.client_round(client, broadcast)
        broken = find_non_finite(upload.payload)
        if broken is not None:
            raise ClientError(client_id, client.round, "upload", f"{broken} is not finite")
        scalars = {
            **upload.scalars,
            "time/client": time.perf_counter() - began_s,
            "memory/peak_bytes": peak_memory_bytes(),
        }
        return Upload(upload.client, upload.round, upload.num_images, upload.payload, scalars)

    def finish(self, client_id: int, broadcast: Broadcast) -> dict[str, float]:
        """The client's last step, keyed as the round after the last; returns its scalars."""
        client = self._clients[client_id]
        client.begin_round(broadcast.round + 1)
        self._method.finish(client, broadcast)
        return {**client.scalars, "memory/peak_bytes": peak_memory_bytes()}

    def evaluate(self, client_id: int) -> NDArray[np.int64]:
        """The client's confusion matrix on the global test set."""
        return self._clients[client_id].confusion(self._dataset.test)

    def samples(self, client_id: int, broadcast: Broadcast, num_per_class: int) -> tuple[Any, list[int]] | None:
        """Generated images as uint8 (N, channels, side, side) and the label of each, or None."""
        drawn = self._method.samples(self._clients[client_id], broadcast, num_per_class=num_per_class)
        if drawn is None:
            return None
        images, labels_N = drawn
        return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy(), labels_N.tolist()

    def state(self, client_id: int) -> dict[str, Any]:
        """A copy of what the client remembers from round to round."""
        return copy.deepcopy(self._clients[client_id].state_dict())

    def restore(self, client_id: int, state: dict[str, Any]) -> None:
        """Puts the client into a state that `state` gave, of this host or another."""
        self._clients[client_id].load_state_dict(copy.deepcopy(state))

    def digest(self, client_id: int) -> str:
        """SHA-256 of the client's weights."""
        return self._clients[client_id].weights_digest()

    def process_id(self, client_id: int) -> int:
        """The process that hosts the client."""
        return os.getpid()


def peak_memory_bytes() -> float:
    """Largest resident memory that this process had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
