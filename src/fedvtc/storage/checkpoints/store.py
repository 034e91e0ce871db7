"""Stores the checkpoints of one run, in a folder or behind a URL: written completely or not at all, checked on use."""

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from fsspec.implementations.local import LocalFileSystem

from fedvtc.errors import CheckpointError, count_of
from fedvtc.storage.checkpoints.local_folders import LocalFolders
from fedvtc.storage.checkpoints.manifest import FOLDER_NAME, MANIFEST_FILE, SHARD_NAME, Manifest, Shard
from fedvtc.storage.checkpoints.remote_folders import RemoteFolders, open_url
from fedvtc.storage.checkpoints.shard_file import Save, ShardFile

Report = Callable[[str], None]
"""Takes one line for the user."""


def _ignore(line: str) -> None:
    pass


def _faultless(manifest: Manifest) -> None:
    return None


class _Folders(Protocol):
    """Storage of checkpoint folders: `LocalFolders` or `RemoteFolders`."""

    def names(self) -> list[str]: ...
    def begin(self, folder: str, attempt: int) -> str: ...
    def create(self, draft: str, name: str) -> AbstractContextManager[BinaryIO]: ...
    def take_over(self, draft: str, folder: str, sizes: Mapping[str, int]) -> set[str]: ...
    def publish(self, draft: str, folder: str, manifest: bytes) -> None: ...
    def size(self, folder: str, name: str) -> int: ...
    def open(self, folder: str, name: str) -> AbstractContextManager[BinaryIO]: ...
    def remove(self, folder: str) -> None: ...
    def clear_drafts(self) -> None: ...


class CheckpointStore:
    """The checkpoints of one run, each a folder of shards and a manifest that is written last.

    The coordinator calls `draft`, the processes of the clients call `write`, and the coordinator calls `publish`, or
    `discard` after a failure. A store can be pickled and sent to the processes that write. All methods may raise
    OSError.

    Args:
        location: a folder, or an fsspec URL such as `s3://bucket/fedvtc/run`, for this run only.

    Raises:
        CheckpointError: if the URL chains file systems, its file system is unknown or not installed, or its server does
            not answer.
    """

    def __init__(self, location: str | Path) -> None:
        self._folders: _Folders
        if "://" not in str(location):
            location = Path(os.path.expanduser(location)).absolute()
            self._folders, self._label = LocalFolders(location), location.name
        else:
            file_system, root = open_url(str(location))
            is_local = isinstance(file_system, LocalFileSystem)
            self._folders = LocalFolders(Path(root)) if is_local else RemoteFolders(file_system, root)
            self._label = root.rstrip("/").rsplit("/", 1)[-1]
        self.location = str(location)

    def __reduce__(self) -> tuple[type["CheckpointStore"], tuple[str]]:
        # Each process opens its own connection.
        return CheckpointStore, (self.location,)

    def draft(self, folder: str, attempt: int) -> str:
        """Creates an empty draft of a checkpoint.

        Args:
            folder: `Manifest.folder` of the checkpoint.
            attempt: number of the run's attempt; processes of a lost attempt may still write into their own drafts.

        Returns:
            The draft's name, for `write`, `publish` and `discard`. Object stores cannot rename: there the draft is the
            folder itself, and an existing checkpoint in it is deleted.
        """
        return self._folders.begin(folder, attempt)

    def write(self, draft: str, name: str, save: Save) -> Shard:
        """Writes one shard durably. Different processes may write different shards, and a shard may be written again.

        Args:
            draft: name of the draft.
            name: name of the shard.
            save: writes the content into a file; after `save` returns, the state may change.
        """
        assert SHARD_NAME.fullmatch(name)
        with self._folders.create(draft, name) as file:
            shard_file = ShardFile(name, file)
            save(shard_file)
            return shard_file.end()

    def take_over(self, draft: str, manifest: Manifest, names: Collection[str]) -> list[Shard]:
        """Puts shards of an earlier checkpoint into a draft without writing the contents again.

        In a local folder both checkpoints share the files, so damage hits both.

        Returns:
            The shards, without those that are missing in the earlier checkpoint or cannot be shared.
        """
        shards = [shard for shard in manifest.shards if shard.name in names]
        sizes = {shard.name: shard.num_bytes for shard in shards}
        taken = self._folders.take_over(draft, manifest.folder, sizes)
        return [shard for shard in shards if shard.name in taken]

    def copy(self, draft: str, manifest: Manifest, name: str, source: "CheckpointStore | None" = None) -> Shard:
        """Reads a shard of an earlier checkpoint and writes the content into a draft.

        Args:
            draft: name of the draft.
            manifest: the earlier checkpoint.
            name: name of the shard.
            source: the store of the earlier checkpoint; None for this store.

        Raises:
            CheckpointError: if the earlier shard is missing, unreadable or damaged.
        """
        content = (source or self).read(manifest, name)
        return self.write(draft, name, lambda file: file.write(content))

    def publish(self, draft: str, manifest: Manifest) -> None:
        """Turns a draft into a checkpoint, which replaces an older checkpoint of the same name.

        A crash leaves the old checkpoint, the new one, or neither, but never an incomplete checkpoint with a manifest.
        """
        self._folders.publish(draft, manifest.folder, manifest.to_json().encode())

    def discard(self, draft: str) -> None:
        """Deletes a draft; ignores errors."""
        with suppress(OSError):
            self._folders.remove(draft)

    def remove(self, folder: str) -> None:
        """Deletes the checkpoint of this `Manifest.folder`, if there is one; ignores errors."""
        with suppress(OSError):
            self._folders.remove(folder)

    def clear_drafts(self) -> None:
        """Deletes leftovers of crashes; no other process may write here meanwhile."""
        self._folders.clear_drafts()

    def manifests(self, report: Report = _ignore) -> list[Manifest]:
        """Reads all manifests: `final` first, then rounds from the newest on; shards are not checked.

        Args:
            report: gets a line for each folder with a damaged manifest.
        """
        found = []
        for folder in sorted(filter(FOLDER_NAME.fullmatch, self._folders.names()), reverse=True):
            try:
                found.append(self._manifest(folder))
            except CheckpointError as error:
                report(str(error))
        return sorted(found, key=lambda manifest: (manifest.phase == "final", manifest.round), reverse=True)

    def problems(self, manifest: Manifest) -> list[str]:
        """Reads every byte of a checkpoint and returns its problems, one line each."""
        found = []
        for shard in manifest.shards:
            try:
                with self._shard(manifest, shard) as file:
                    digest = _sha256_of(file)
                self._check_hash(manifest, shard, digest)
            except CheckpointError as error:
                found.append(str(error))
        return found

    def read(self, manifest: Manifest, name: str) -> bytes:
        """Reads one shard and checks its size and hash.

        Raises:
            CheckpointError: if the shard is missing, unreadable or damaged.
        """
        shard = manifest.shard(name)
        if shard is None:
            raise CheckpointError(f"{self._label}/{manifest.folder}: {name} is not part of the checkpoint")
        with self._shard(manifest, shard) as file:
            content = file.read()
        self._check_hash(manifest, shard, hashlib.sha256(content).hexdigest())
        return content

    def newest_whole(
        self,
        report: Report = _ignore,
        *,
        fault_of: Callable[[Manifest], str | None] = _faultless,
        max_round: int | None = None,
    ) -> Manifest | None:
        """Returns the newest checkpoint of a round without problems; None if there is none.

        Args:
            report: gets a line for each newer checkpoint that is damaged or has a fault.
            fault_of: returns another fault of a checkpoint in words, or None.
            max_round: newer rounds are skipped.
        """
        for manifest in self.manifests(report):
            if manifest.phase != "round" or (max_round is not None and manifest.round > max_round):
                continue
            if fault := fault_of(manifest):
                report(f"{self._label}/{manifest.folder}: {fault}")
                continue
            problems = self.problems(manifest)
            if not problems:
                return manifest
            more = f" (and {count_of(len(problems) - 1, 'more problem')})" if len(problems) > 1 else ""
            report(problems[0] + more)
        return None

    def prune(self, kept: Sequence[Manifest], keep_best: bool) -> None:
        """Deletes checkpoints of rounds; keeps `final` and checkpoints with a damaged manifest.

        Args:
            kept: checkpoints to keep.
            keep_best: True also keeps the checkpoint with the highest accuracy; if equal, the newest.
        """
        rounds = [manifest for manifest in self.manifests() if manifest.phase == "round"]
        folders = {manifest.folder for manifest in kept}
        if keep_best and rounds:
            # `max` takes the first of equals, and the newest is first.
            folders.add(max(rounds, key=_accuracy).folder)
        for manifest in rounds:
            if manifest.folder not in folders:
                self._folders.remove(manifest.folder)

    def _manifest(self, folder: str) -> Manifest:
        where = f"{self._label}/{folder}"
        try:
            with self._folders.open(folder, MANIFEST_FILE) as file:
                content = file.read()
        except OSError as error:
            raise CheckpointError(f"{where}: {MANIFEST_FILE} {_why(error)}") from error
        manifest = Manifest.from_json(content, f"{where}/{MANIFEST_FILE}")
        if manifest.folder != folder:
            raise CheckpointError(f"{where}: {MANIFEST_FILE} belongs to {manifest.folder}")
        return manifest

    @contextmanager
    def _shard(self, manifest: Manifest, shard: Shard) -> Iterator[BinaryIO]:
        where = f"{self._label}/{manifest.folder}: {shard.name}"
        try:
            num_bytes = self._folders.size(manifest.folder, shard.name)
            if num_bytes != shard.num_bytes:
                raise CheckpointError(f"{where} has {num_bytes} of {shard.num_bytes} bytes")
            with self._folders.open(manifest.folder, shard.name) as file:
                yield file
        except OSError as error:
            raise CheckpointError(f"{where} {_why(error)}") from error

    def _check_hash(self, manifest: Manifest, shard: Shard, digest: str) -> None:
        if digest != shard.sha256:
            raise CheckpointError(f"{self._label}/{manifest.folder}: {shard.name} does not match its hash")


def _sha256_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({' '.join((error.strerror or str(error)).split())})"


def _accuracy(manifest: Manifest) -> float:
    return -math.inf if manifest.accuracy is None else manifest.accuracy
