"""Opens a finished run: its data, its last broadcast, and its clients with their final models. Changes no file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedvtc.config import absolute_paths, check_resumable, load
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, ConfigError
from fedvtc.federation.resume import check_same_data
from fedvtc.federation.starting_point import checkpoint_store
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.client.evaluation import Predictor
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import Method, Task, build, config_classes
from fedvtc.learning.population import Population
from fedvtc.runtime.device import PROCESS_THREADS, inline_device
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, shard_name
from fedvtc.storage.checkpoints.contents import misfit, read_server
from fedvtc.storage.checkpoints.trees import read_tree
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import check_owner, resume_command


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run with its final checkpoint.

    Attributes:
        folder: the run folder.
        config: the run's config.
        population: the data set, and the backbone and the images of each client.
        method: the run's method.
        broadcast: the last broadcast that the clients received.
        device: device of the models.
    """

    folder: RunFolder
    config: Config
    population: Population
    method: Method[Any]
    broadcast: Broadcast
    device: torch.device
    _store: CheckpointStore
    _manifest: Manifest

    def client(self, number: int) -> FederatedClient:
        """Builds a client with its final model and memory; draws are keyed by the round after the last broadcast.

        Raises:
            CheckpointError: the client's file of the checkpoint is damaged.
        """
        name = shard_name(number)
        # A client that has never worked has no file.
        state = read_tree(self._store.read(self._manifest, name)) if self._manifest.shard(name) else None
        client = FederatedClient(self.population.specs[number], self.config, self.population.dataset, self.device)
        self.method.prepare(client)
        if state is not None:
            client.load_state_dict(state)
        client.begin_round(self.broadcast.round + 1)
        return client

    def clients(self, numbers: Sequence[int] | None = None) -> Iterator[FederatedClient]:
        """Yields clients one at a time; None yields all clients.

        Raises:
            ConfigError: the run has no client of a number.
            CheckpointError: a file of the checkpoint is damaged.
        """
        num_clients = len(self.population.specs)
        if absent := [number for number in numbers or () if not 0 <= number < num_clients]:
            what = f"--clients {absent[0]}: the run has the clients 0 to {num_clients - 1}"
            raise ConfigError([f"{what}. Name some of these."])
        return map(self.client, range(num_clients) if numbers is None else numbers)

    def before_last_step(self) -> "FinishedRun | None":
        """Returns the run after its last round, before the method's closing exchange and last step.

        None if the method has no last step, or if the checkpoint of the last round is gone.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        if not (self.method.has_closing or self.method.has_finish):
            return None
        last = next((found for found in self._store.manifests() if _is_last_round(found, self.config)), None)
        if last is None or misfit(last, self.folder.id, self.config):
            return None
        return replace(self, broadcast=read_server(self._store, last)[1], _manifest=last)

    def predictors(self, client: FederatedClient) -> Mapping[str, Predictor]:
        """Returns the client's predictors in the final evaluation, the ranked one first."""
        return self.method.predictors(client, self.broadcast.seen_by(client.backbone_name))


@contextmanager
def finished_run(path: Path, overrides: Sequence[str] = (), *, trusted: bool = False) -> Iterator[FinishedRun]:
    """Opens the final models of a run; the block has the threads of the run, so that predictions keep their bits.

    Args:
        path: the run folder.
        overrides: `key=value` of keys that may change, such as `data.root`.
        trusted: open the run even if its folder belongs to another user.

    Raises:
        UserError: the folder holds no run, belongs to another user, or has no final checkpoint; a key may not change;
            or the data set is absent or is not that of the run.
    """
    folder = RunFolder.open(path)
    check_owner(folder.path, trusted)
    methods = config_classes()
    before = absolute_paths(load([config_layer(folder.path)], [], methods=methods))
    config = before
    if overrides:
        config = absolute_paths(load([config_layer(folder.path)], overrides, methods=methods))
        check_resumable(before, config)
    store = checkpoint_store(config, folder)
    manifest = _final(store, folder, before)
    _, broadcast = read_server(store, manifest)
    population = Population.of(config, folder.partition)
    check_same_data(folder, config.data, population.report)
    method = build(config.method, Task.of(config, population.dataset))
    device = inline_device(config.placement)
    with PROCESS_THREADS.held(config.placement.threads_per_actor):
        yield FinishedRun(folder, config, population, method, broadcast, device, store, manifest)


def _is_last_round(manifest: Manifest, config: Config) -> bool:
    return manifest.phase == "round" and manifest.round == config.run.rounds


def _final(store: CheckpointStore, folder: RunFolder, config: Config) -> Manifest:
    """Returns the final checkpoint of a run.

    Raises:
        CheckpointError: there is no final checkpoint, or the checkpoint belongs to another run or config.
    """
    damaged: list[str] = []
    try:
        manifests = store.manifests(damaged.append)
    except OSError as error:
        what = f"{store.location}: checkpoints cannot be read ({error.strerror or error})"
        raise CheckpointError(f"{what}. Make the folder readable.") from None
    final = next((manifest for manifest in manifests if manifest.phase == "final"), None)
    if final is None:
        what = f"{folder.path}: has no final checkpoint"
        if damaged:
            raise CheckpointError(f"{what} that is whole ({damaged[0]}). Run the config again.")
        if config.checkpoint.every is None:
            raise CheckpointError(f"{what}, because checkpoint.every is null. Run the config with checkpoint.every=1.")
        if folder.status == "finished" and not manifests:
            # A resume would repeat all rounds, so it leaves such a run alone.
            raise CheckpointError(f"{folder.path}: has no checkpoint. Run the config again.")
        raise CheckpointError(f"{what}. Resume the run to its end: {resume_command(folder.path)}")
    if fault := misfit(final, folder.id, config):
        raise CheckpointError(f"{folder.path}: the final checkpoint {fault[0]}. {fault[1]}")
    return final
