"""The clients of one process, and the tasks that a coordinator runs on the clients.

Plain Python: a pool calls a `ClientHost` directly, or inside a Ray actor. Lightning is imported with the first client,
so that a coordinator whose clients live in actors can name tasks without the seconds of that import.
"""

from __future__ import annotations

import io
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError, ClientMemoryError, FedvtcError
from fedvtc.learning.client.image_memory import ImageMemory
from fedvtc.learning.costs import FlopCounts
from fedvtc.learning.data import Dataset
from fedvtc.learning.exchange.messages import Broadcast, Upload, find_non_finite
from fedvtc.learning.methods import Method, Task, as_result, build
from fedvtc.learning.peak_memory import measured_memory
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.heavy_imports import fast_imports
from fedvtc.runtime.lineage import History
from fedvtc.runtime.measured_step import measured_step
from fedvtc.runtime.residents import Residents
from fedvtc.runtime.restoring import restore
from fedvtc.runtime.snapshots import Snapshots
from fedvtc.runtime.tasks import Arguments, Result, changes_client
from fedvtc.storage.checkpoints import CheckpointStore, Shard, shard_name
from fedvtc.storage.checkpoints.shard_file import Save
from fedvtc.storage.checkpoints.trees import read_tree, write_tree

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.evaluation import Evaluation


class ClientHost:
    """Hosts clients in one process; one client works at a time.

    Args:
        config: the run's config.
        dataset: the images of all clients; read only, because other processes may share the arrays.
        specs: the clients to host.
        device: the device that the clients compute on.
        idle_folder: folder for the states of idle clients, as in `IdleFile`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        specs: Sequence[ClientSpec],
        device: torch.device,
        idle_folder: Path | None = None,
    ) -> None:
        self._config, self._dataset, self._device = config, dataset, device
        self._method: Method[Any] = build(config.method, Task.of(config, dataset))
        self._specs = {spec.client: spec for spec in specs}
        # The first task of a client builds the client: a client that is restored first need not be built twice.
        self._clients = Residents(self._built, config.placement.client_bytes_per_actor, idle_folder)
        self._snapshots = Snapshots()
        self._shared = (FlopCounts(device), ImageMemory(config.placement.image_bytes_per_actor))

    def perform(
        self, task: Callable[[ClientHost, int, *Arguments], Result], client_id: int, *arguments: *Arguments
    ) -> Result:
        """Runs one task on a client, and names the client, the round and the phase in every error.

        Raises:
            ClientError: the task failed.
        """
        try:
            return task(self, client_id, *arguments)
        except FedvtcError:
            raise
        except Exception as error:
            client = self._clients.peek(client_id)
            at = (client.round, client.phase_name or task.__name__) if client else (0, task.__name__)
            kind = ClientMemoryError if isinstance(error, MemoryError | torch.OutOfMemoryError) else ClientError
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise kind(client_id, *at, reason, traceback.format_exc()) from error

    @changes_client
    def run_round(self, client_id: int, broadcast: Broadcast) -> Upload:
        """Runs the client's half of the round that follows the broadcast.

        Raises:
            ClientError: the client failed, or its upload or the outputs of its model are not finite.
        """
        return self._uploaded(client_id, broadcast, self._method.client_round)

    @changes_client
    def closing_upload(self, client_id: int, broadcast: Broadcast) -> Upload:
        """Runs the client's half of the closing exchange, keyed by the round number after the last round.

        Raises:
            ClientError: as in `run_round`.
        """
        return self._uploaded(client_id, broadcast, self._method.closing_upload)

    @changes_client
    def finish(self, client_id: int, broadcast: Broadcast) -> dict[str, float]:
        """Runs the client's step after the last round, keyed by the next round number; returns the client's scalars.

        Raises:
            ClientError: the client failed, or the outputs of its model are not finite.
        """
        client = self._begun(client_id, broadcast)
        broadcast = broadcast.seen_by(client.backbone_name)
        with measured_step(client) as costs:
            self._method.receive(client, broadcast)
            self._method.finish(client, broadcast)
        return {**client.scalars, **costs}

    def evaluate(self, client_id: int, broadcast: Broadcast, is_finished: bool = False) -> Evaluation:
        """Evaluates the client on the global test set, and on its validation images.

        Args:
            client_id: the client's number.
            broadcast: the newest broadcast, which the client receives for the evaluation only.
            is_finished: True if the client has already received the broadcast for good, in `finish`.
        """
        client, method = self._clients.use(client_id), self._method
        broadcast = broadcast.seen_by(client.backbone_name)
        if is_finished or not method.has_receive:
            return self._measured(client, broadcast)
        # The thread that writes a checkpoint must not see the received weights.
        self._snapshots.before_change(client_id, self._saver(client_id))
        with client.restored():
            trained = next(iter(method.predictors(client, broadcast).values()))
            before = client.confusions(self._dataset.test, {"trained": trained})
            method.receive(client, broadcast)
            found = self._measured(client, broadcast)
            return found._replace(confusions=found.confusions | before)

    def samples(
        self, client_id: int, broadcast: Broadcast, num_per_class: int
    ) -> tuple[NDArray[np.uint8], list[int]] | None:
        """Returns generated images, uint8 (N, channels, side, side), with the label of each.

        None if the method generates no images.
        """
        from fedvtc.learning.data.generated import drawn_pixels

        client = self._clients.use(client_id)
        drawn = self._method.samples(client, broadcast.seen_by(client.backbone_name), num_per_class=num_per_class)
        if drawn is None:
            return None
        return drawn_pixels(drawn, self._dataset)

    def hold(self, client_id: int) -> None:
        """Holds the client's present state for the next `save`, even if the client works before that `save`."""
        # Built here and not by the thread that writes: building draws from PyTorch's globals.
        self._clients.keep(client_id)
        self._snapshots.hold(client_id)

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Shard]:
        """Writes the state that each client had at `hold`; another thread may call this method.

        Raises:
            OSError: a state cannot be written.
        """
        try:
            return [
                store.write(draft, shard_name(client), partial(self._snapshots.save, client, self._saver(client)))
                for client in clients
            ]
        finally:
            self._snapshots.release(clients)
            self._clients.release()

    def rebuild(self, client_id: int, history: History) -> list[str]:
        """Rebuilds the client from its history; drops the present state of the client.

        Returns:
            One line for each damaged checkpoint that was skipped.

        Raises:
            CheckpointError: every checkpoint is damaged, and the steps do not start at the first round.
        """
        # The client is absent until its rebuild is complete, so that no task can run on a client in a wrong state.
        self.forget(client_id)
        if not history.has_state:
            self._clients.expect(client_id)
            return []
        client = self._built(client_id)
        start, damaged = restore(client, history)
        self._clients.add(client)
        for step in history.steps:
            if step.round > start:
                getattr(self, step.task)(client_id, step.broadcast)
        return damaged

    def give(self, client_id: int) -> bytes:
        """Returns the client's state for `take` in another process, and drops the client; for any thread."""
        client = self._clients.use(client_id)
        write_tree({"round": client.round, "state": client.state_dict()}, file := io.BytesIO())
        self.forget(client_id)
        self._clients.release()
        return file.getvalue()

    def take(self, client_id: int, content: bytes) -> None:
        """Builds the client in the state that another process returned by `give`."""
        given, client = read_tree(content, f"client {client_id}"), self._built(client_id)
        client.load_state_dict(given["state"])
        client.begin_round(given["round"])
        self._clients.add(client)

    def forget(self, client_id: int) -> None:
        """Drops the client; a held state that is not yet written is set aside first."""
        if client_id in self._clients:
            self._snapshots.before_change(client_id, self._saver(client_id))
        self._clients.drop(client_id)

    def adopt(self, specs: Sequence[ClientSpec]) -> None:
        """Adds clients to the host; each has to be built by `rebuild`."""
        self._specs |= {spec.client: spec for spec in specs}
        for spec in specs:
            self._clients.drop(spec.client)

    def close(self) -> None:
        """Deletes the file of idle clients."""
        self._clients.close()

    def digest(self, client_id: int) -> str:
        """Returns the SHA-256 of the client's weights."""
        return self._clients.use(client_id).weights_digest()

    def process_id(self, client_id: int) -> int:
        """Returns the id of the process that hosts the client."""
        return os.getpid()

    def _uploaded(
        self, client_id: int, broadcast: Broadcast, step: Callable[[FederatedClient, Broadcast], Upload | None]
    ) -> Upload:
        client = self._begun(client_id, broadcast)
        broadcast = broadcast.seen_by(client.backbone_name)
        with measured_step(client) as costs:
            self._method.receive(client, broadcast)
            upload = as_result(step(client, broadcast) or client.upload(), Upload, self._method, step.__name__)
            if (broken := find_non_finite(upload.payload)) is not None:
                raise ClientError(client_id, client.round, "upload", f"{broken} is not finite")
        return replace(upload, scalars={**upload.scalars, **costs})

    def _measured(self, client: FederatedClient, broadcast: Broadcast) -> Evaluation:
        from fedvtc.learning.client.evaluation import Evaluation, accuracies, checked_predictors

        predictors, data = checked_predictors(self._method.predictors(client, broadcast)), self._dataset
        ranked = next(iter(predictors))
        scores: list[NDArray[np.float32]] | None = [] if self._config.evaluate.ensemble else None
        peaks: dict[str, float] = {}
        with measured_memory(peaks, "evaluate", client.device):
            found = Evaluation(client.confusions(data.test, predictors, scores), peaks)
        if scores is not None:
            found = found._replace(probabilities_NC=np.concatenate(scores))

        def num_correct(index_M: NDArray[np.int64]) -> int:
            return int(np.trace(client.confusions(data.train.at(index_M), {"": predictors[ranked]})[""]))

        own, of_all = accuracies(num_correct, self._specs[client.id].validation_M, data.validation_M)
        return found._replace(validation_accuracy=own, global_validation_accuracy=of_all)

    def _built(self, client_id: int) -> FederatedClient:
        with fast_imports():
            from fedvtc.learning.client.client import FederatedClient

        client = FederatedClient(self._specs[client_id], self._config, self._dataset, self._device, *self._shared)
        self._method.prepare(client)
        return client

    def _begun(self, client_id: int, broadcast: Broadcast) -> FederatedClient:
        """Returns the client, ready for the step that follows the broadcast."""
        client = self._clients.use(client_id)
        self._snapshots.before_change(client_id, self._saver(client_id))
        self._clients.changed(client_id)
        client.begin_round(broadcast.round + 1)
        return client

    def _saver(self, client_id: int) -> Save:
        return lambda file: write_tree(self._clients.use(client_id).state_dict(), file)
