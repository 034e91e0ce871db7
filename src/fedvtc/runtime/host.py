"""The clients that one process hosts, and the tasks a coordinator may ask of each.

Plain Python: a pool calls it directly, or in a Ray actor.
"""

import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ClientError, ClientMemoryError, FedvtcError
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data import Dataset
from fedvtc.learning.exchange.messages import Broadcast, Upload, find_non_finite
from fedvtc.learning.methods import Method, Task, build
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.lineage import History
from fedvtc.runtime.snapshots import Snapshots
from fedvtc.storage.checkpoints import CheckpointStore, Shard, shard_name
from fedvtc.storage.checkpoints.shard_file import Save, Sink
from fedvtc.storage.checkpoints.trees import read_tree, write_tree


class ClientHost:
    """Clients in one process, one at work at a time.

    Args:
        config: of the federation.
        dataset: arrays that may be shared with other processes; only read.
        specs: the clients to host.
        device: where they compute.
    """

    def __init__(self, config: Config, dataset: Dataset, specs: Sequence[ClientSpec], device: torch.device) -> None:
        self._config, self._dataset, self._device = config, dataset, device
        self._method: Method[Any] = build(config.method, Task.of(config, dataset))
        self._specs = {spec.client: spec for spec in specs}
        # Built by their first task: clients that are restored, or that wait for many others, need not be built twice.
        self._clients: dict[int, FederatedClient] = {}
        self._unbuilt = {spec.client for spec in specs}
        self._snapshots = Snapshots()

    def perform(self, task: str, client_id: int, *arguments: Any) -> Any:
        """Runs one task of a client; the tasks are the methods below whose first argument is one.

        Raises:
            ClientError: whatever went wrong in it, with the client, the round and the phase.
        """
        try:
            return getattr(self, task)(client_id, *arguments)
        except FedvtcError:
            raise
        except Exception as error:
            client = self._clients.get(client_id)
            at = (client.round, client.phase_name or task) if client else (0, task)
            kind = ClientMemoryError if isinstance(error, MemoryError | torch.OutOfMemoryError) else ClientError
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise kind(client_id, *at, reason, traceback.format_exc()) from error

    def run_round(self, client_id: int, broadcast: Broadcast) -> Upload:
        """The client's half of the round after the broadcast's.

        Raises:
            ClientError: it failed, would have uploaded something that is not finite, or has a model that computes such.
        """
        client = self._begun(client_id, broadcast)
        began_s = time.perf_counter()
        upload = self._method.client_round(client, broadcast)
        broken = find_non_finite(upload.payload)
        if broken is not None:
            raise ClientError(client_id, client.round, "upload", f"{broken} is not finite")
        client.check_outputs()
        scalars = {
            **upload.scalars,
            "time/client": time.perf_counter() - began_s,
            "memory/peak_bytes": peak_memory_bytes(),
        }
        return Upload(upload.client, upload.round, upload.num_images, upload.payload, scalars)

    def finish(self, client_id: int, broadcast: Broadcast) -> dict[str, float]:
        """The client's last step, keyed as the round after the last; returns its scalars.

        Raises:
            ClientError: it failed, or its model computes what is not finite.
        """
        client = self._begun(client_id, broadcast)
        self._method.finish(client, broadcast)
        client.check_outputs()
        return {**client.scalars, "memory/peak_bytes": peak_memory_bytes()}

    def evaluate(self, client_id: int) -> NDArray[np.int64]:
        """The client's confusion matrix on the global test set."""
        return self._client(client_id).confusion(self._dataset.test)

    def samples(self, client_id: int, broadcast: Broadcast, num_per_class: int) -> tuple[Any, list[int]] | None:
        """Generated images as uint8 (N, channels, side, side) and the label of each, or None."""
        drawn = self._method.samples(self._client(client_id), broadcast, num_per_class=num_per_class)
        if drawn is None:
            return None
        images, labels_N = drawn
        return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy(), labels_N.tolist()

    def hold(self, client_id: int) -> None:
        """What the client is now is what `save` will write, whatever it does meanwhile."""
        self._client(client_id)  # Not by the thread that writes: building draws from PyTorch's global generators.
        self._snapshots.hold(client_id)

    def save(self, client_id: int, store: CheckpointStore, draft: str) -> Shard:
        """Writes the state that the client had at `hold`; may be called by another thread.

        Raises:
            OSError: it cannot be written.
        """

        def save_snapshot(file: Sink) -> None:
            self._snapshots.save(client_id, self._saver(client_id), file)

        return store.write(draft, shard_name(client_id), save_snapshot)

    def rebuild(self, client_id: int, history: History) -> list[str]:
        """Makes the client anew as its history says, and forgets what it was.

        Returns:
            One line for each checkpoint that was passed over, because it is damaged.

        Raises:
            CheckpointError: none of its checkpoints is whole, and its steps do not reach back to the first round.
        """
        # While it is not as it should be, it is not there: no task may run on it.
        self.forget(client_id)
        client = self._built(self._specs[client_id])
        start, damaged = self._restored(client, history)
        self._clients[client_id] = client
        for task, round, broadcast in history.steps:
            if round > start:
                getattr(self, task)(client_id, broadcast)
        return damaged

    def forget(self, client_id: int) -> None:
        """Lets go of the client, as soon as what `save` has yet to write of it is set aside."""
        if client_id in self._clients:
            self._snapshots.before_change(client_id, self._saver(client_id))
        self._clients.pop(client_id, None)
        self._unbuilt.discard(client_id)

    def adopt(self, specs: Sequence[ClientSpec]) -> None:
        """Takes on more clients, each of which `rebuild` has to make."""
        self._specs |= {spec.client: spec for spec in specs}

    def digest(self, client_id: int) -> str:
        """SHA-256 of the client's weights."""
        return self._client(client_id).weights_digest()

    def process_id(self, client_id: int) -> int:
        """The process that hosts the client."""
        return os.getpid()

    def _client(self, client_id: int) -> FederatedClient:
        if client_id in self._unbuilt:
            self._clients[client_id] = self._built(self._specs[client_id])
            self._unbuilt.discard(client_id)
        return self._clients[client_id]

    def _built(self, spec: ClientSpec) -> FederatedClient:
        client = FederatedClient(spec, self._config, self._dataset, self._device)
        self._method.prepare(client)
        return client

    def _restored(self, client: FederatedClient, history: History) -> tuple[int, list[str]]:
        """The round that the client now stands after, and the checkpoints that could not be used."""
        damaged = []
        for manifest in history.checkpoints:
            assert history.store is not None
            try:
                state = read_tree(history.store.read(manifest, shard_name(client.id)))
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            client.load_state_dict(state)
            client.begin_round(manifest.round)
            return manifest.round, damaged
        if not history.from_nothing:
            raise CheckpointError("\n".join(damaged))
        return 0, damaged

    def _begun(self, client_id: int, broadcast: Broadcast) -> FederatedClient:
        """The client, about to take the step that follows the broadcast."""
        client = self._client(client_id)
        self._snapshots.before_change(client_id, self._saver(client_id))
        client.begin_round(broadcast.round + 1)
        return client

    def _saver(self, client_id: int) -> Save:
        return lambda file: write_tree(self._clients[client_id].state_dict(), file)


def peak_memory_bytes() -> float:
    """Largest resident memory that this process had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
