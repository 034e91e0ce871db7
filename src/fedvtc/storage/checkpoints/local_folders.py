"""Stores checkpoint folders on a disk: writes a draft beside the folder, syncs the draft, then renames it."""

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedvtc.storage.checkpoints.manifest import MANIFEST_FILE

_REPLACED = ".replaced.tmp"
_REMOVED = ".removed.tmp"
_UNFINISHED = re.compile(r"(round_[0-9]{6,}|final)(\.attempt-[0-9]+)?(\.replaced|\.removed)?\.tmp")


class LocalFolders:
    """Folders of plain files under one root; links under the root are neither read nor followed.

    All methods may raise OSError.

    Args:
        root: folder of the checkpoints; created with the first draft.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Returns the names under the root; none if the root does not exist."""
        try:
            return os.listdir(self._root)
        except FileNotFoundError:
            return []

    def begin(self, folder: str, attempt: int) -> str:
        """Creates an empty draft beside a checkpoint folder and returns the draft's name."""
        draft = f"{folder}.attempt-{attempt}.tmp"
        _delete(self._root / draft)
        (self._root / draft).mkdir(parents=True)
        return draft

    @contextmanager
    def create(self, draft: str, name: str) -> Iterator[BinaryIO]:
        """Opens a new file of a draft for writing; after the block, the content is on disk.

        Raises:
            FileNotFoundError: this node does not have the draft, which another node may have created.
        """
        folder = self._root / draft
        try:
            file = (folder / name).open("wb")
        except FileNotFoundError as error:
            fix = "set checkpoint.dir to a folder or URL that every node reaches"
            raise FileNotFoundError(f"{socket.gethostname()} has no folder {folder}: {fix}") from error
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _uncache(file.fileno())

    def take_over(self, draft: str, folder: str, sizes: Mapping[str, int]) -> set[str]:
        """Hard-links files of an earlier checkpoint folder into a draft; returns the names of the linked files.

        Args:
            draft: name of the draft.
            folder: name of the checkpoint folder.
            sizes: bytes of each file; a file of another size is damaged and not linked.
        """
        taken = set()
        for name, num_bytes in sizes.items():
            with contextlib.suppress(OSError):
                if self.size(folder, name) == num_bytes:
                    os.link(self._root / folder / name, self._root / draft / name, follow_symlinks=False)
                    taken.add(name)
        return taken

    def publish(self, draft: str, folder: str, manifest: bytes) -> None:
        """Writes the manifest and renames the draft to `folder`; an incomplete folder never has this name."""
        with self.create(draft, MANIFEST_FILE) as file:
            file.write(manifest)
        _sync_folder(self._root / draft)
        place, aside = self._root / folder, self._root / (folder + _REPLACED)
        if os.path.lexists(place):
            _delete(aside)
            os.replace(place, aside)
        os.replace(self._root / draft, place)
        _sync_folder(self._root)
        # The new checkpoint is complete; `clear_drafts` deletes leftovers of the old checkpoint.
        with contextlib.suppress(OSError):
            _delete(aside)

    def size(self, folder: str, name: str) -> int:
        """Returns the bytes of a plain file in a plain folder."""
        _require(stat.S_ISDIR, self._root / folder, "not a plain folder")
        return _require(stat.S_ISREG, self._root / folder / name, "not a plain file").st_size

    @contextmanager
    def open(self, folder: str, name: str) -> Iterator[BinaryIO]:
        """Opens a plain file in a plain folder for reading."""
        self.size(folder, name)
        with (self._root / folder / name).open("rb") as file:
            yield file

    def remove(self, folder: str) -> None:
        """Deletes a folder or a draft; a crash meanwhile leaves no incomplete checkpoint folder."""
        aside = self._root / (folder.removesuffix(".tmp") + _REMOVED)
        _delete(aside)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._root / folder, aside)
        _delete(aside)

    def clear_drafts(self) -> None:
        """Deletes leftovers of crashes; restores a folder that was set aside by a `publish` that did not end."""
        for name in filter(_UNFINISHED.fullmatch, self.names()):
            place = self._root / name.removesuffix(_REPLACED)
            if name.endswith(_REPLACED) and not os.path.lexists(place):
                os.replace(self._root / name, place)
            else:
                _delete(self._root / name)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _require(is_kind: Callable[[int], bool], path: Path, fault: str) -> os.stat_result:
    status = path.lstat()
    if not is_kind(status.st_mode):
        raise OSError(errno.EINVAL, fault, str(path))
    return status


def _uncache(descriptor: int) -> None:
    """Drops a synced file from the system's page cache.

    Checkpoints are rarely read; in the cache, checkpoints would push out files that are read.
    """
    # Not every system has this call, and its effect is optional.
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems sync files only.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
