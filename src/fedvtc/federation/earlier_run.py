"""Starts a run from the rounds of another run with equal rounds: copies a checkpoint and the records.

Methods that differ after the last round only, such as Local and FedCVAE-Ens, or two settings of fine-tuning, train
their rounds once in this way. The results are those of a run that computes its rounds itself.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch

from fedvtc.config import absolute_paths, check_equal_rounds, fingerprint, load
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, RunFolderError
from fedvtc.federation.resume import check_same_data
from fedvtc.federation.starting_point import checkpoint_store, starting_point
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.population import Population
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.attempt import now
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, shard_name
from fedvtc.storage.checkpoints.trees import read_tree, write_tree
from fedvtc.storage.confusions import CONFUSION_FILE
from fedvtc.storage.records import CLIENTS_FILE, METRICS_FILE
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import check_owner


@dataclass(frozen=True)
class EarlierRun:
    """A run whose rounds are those of a new run.

    Attributes:
        folder: the run folder, which is only read.
        config: the config of the run.
    """

    folder: RunFolder
    config: Config

    @classmethod
    def open(cls, path: Path, config: Config, trusted: bool) -> Self:
        """Opens a run folder.

        Args:
            path: the run folder.
            config: the config of the new run.
            trusted: True opens the folder of another user.

        Raises:
            RunFolderError: the folder holds no run, belongs to another user, or its run has not ended.
            ConfigError: the rounds of the two configs differ.
        """
        folder = RunFolder.open(path)
        check_owner(folder.path, trusted)
        if _status(folder) == "running":
            raise RunFolderError(f"{path}: the run has not ended. Wait for its end, or leave --start-from out.")
        before = absolute_paths(load([config_layer(folder.path)], [], methods=config_classes()))
        check_equal_rounds(before, config, str(path))
        return cls(folder, before)

    @property
    def partition(self) -> Path | None:
        """The file with the image indices of every client; None if the run never drew them."""
        return self.folder.partition if self.folder.partition.exists() else None

    def copy_rounds(
        self, folder: RunFolder, store: CheckpointStore, config: Config, population: Population, incidents: Incidents
    ) -> Manifest:
        """Copies the newest checkpoint and the records into the folder of the new run; trackers cut the records.

        Args:
            folder: the new run folder, locked by this process.
            store: the store of the new run's checkpoints.
            config: the config of the new run.
            population: the data set and the clients of the new run.
            incidents: receives the damaged checkpoints of the earlier run.

        Returns:
            The checkpoint that the new run continues from.

        Raises:
            UserError: the images or labels differ, the earlier run has no whole checkpoint of a round, or has done
                more rounds than the new run asks for, or a file cannot be written.
        """
        check_same_data(self.folder, config.data, population.report)
        kept = checkpoint_store(self.config, self.folder)
        start = starting_point(kept, self.folder, self.config, config, incidents)
        if start is None:
            what = f"{self.folder.path}: the run has no checkpoint of a round"
            raise CheckpointError(f"{what}. Leave --start-from out.")
        try:
            # The records first: after a crash in between, a resume starts over instead of continuing without records.
            for name in (METRICS_FILE, CLIENTS_FILE, CONFUSION_FILE):
                if (self.folder.path / name).is_file():
                    shutil.copyfile(self.folder.path / name, folder.path / name)
            self._copy_pictures(folder, start.round)
            earlier = {"id": self.folder.id, "name": self.folder.name, "round": start.round}
            folder.describe_attempt("started_from", earlier)
            # Last, because `checkpoint.dir` may be outside of the folder, which is deleted after an error.
            copy = self._copy_checkpoint(kept, start, store, folder, config, population)
            folder.note_checkpoints()
        except OSError as error:
            what = f"{folder.path}: the rounds of {self.folder.path} cannot be copied ({error.strerror or error})"
            raise RunFolderError(f"{what}. Free disk space, or set run.output_dir to another disk.") from None
        return copy

    def _copy_pictures(self, folder: RunFolder, last_round: int) -> None:
        # Without the picture of the last round, which may show images after the last step.
        samples = folder.path / "samples"
        for picture in sorted((self.folder.path / samples.name).glob("round_*.png")):
            if picture.name < f"round_{last_round:06d}.png":
                samples.mkdir(exist_ok=True)
                shutil.copyfile(picture, samples / picture.name)

    def _copy_checkpoint(
        self,
        kept: CheckpointStore,
        start: Manifest,
        store: CheckpointStore,
        folder: RunFolder,
        config: Config,
        population: Population,
    ) -> Manifest:
        from fedvtc.learning.client.client import FederatedClient

        shards = []
        clients = {shard_name(spec.client): spec for spec in population.specs}
        method = build(config.method, Task.of(config, population.dataset))
        with _draft(store, start.folder) as draft:
            for shard in start.shards:
                if shard.name not in clients or config.method.name == self.config.method.name:
                    shards.append(store.copy(draft, start, shard.name, source=kept))
                    continue
                # Rounds leave the modules of one method alone as they were built.
                client = FederatedClient(clients[shard.name], config, population.dataset, torch.device("cpu"))
                method.prepare(client)
                trained = read_tree(kept.read(start, shard.name), f"{kept.location}/{start.folder}: {shard.name}")
                state = {name: trained.get(name, own) for name, own in client.state_dict().items()}
                shards.append(store.write(draft, shard.name, partial(write_tree, state)))
            copy = replace(
                start, run_id=folder.id, fingerprint=fingerprint(config), shards=tuple(shards), created=now()
            )
            store.publish(draft, copy)
        return copy


@contextmanager
def _draft(store: CheckpointStore, folder: str) -> Iterator[str]:
    """Yields the draft of a checkpoint; deletes the draft after an error."""
    draft = store.draft(folder, 1)
    try:
        yield draft
    except BaseException:
        store.discard(draft)
        raise


def _status(folder: RunFolder) -> str:
    try:
        return folder.true_status.name
    except OSError:
        # The file system has no locks.
        return folder.status
