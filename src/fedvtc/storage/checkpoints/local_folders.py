"""Checkpoint folders on a disk: written beside their place, made durable, then renamed into it."""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedvtc.storage.checkpoints.manifest import MANIFEST_FILE

_REPLACED = ".replaced.tmp"
_REMOVED = ".removed.tmp"
_UNFINISHED = re.compile(r"(round_[0-9]{6,}|final)(\.attempt-[0-9]+)?(\.replaced|\.removed)?\.tmp")


class LocalFolders:
    """Folders of plain files under one root. Links under it are neither read nor followed, for they may lead anywhere.

    Every method raises OSError as it comes.

    Args:
        root: made with the first draft.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """The names under the root; none where it does not exist."""
        try:
            return os.listdir(self._root)
        except FileNotFoundError:
            return []

    def begin(self, folder: str, attempt: int) -> str:
        """Makes an empty draft beside the folder's place and returns its name."""
        draft = f"{folder}.attempt-{attempt}.tmp"
        _delete(self._root / draft)
        (self._root / draft).mkdir(parents=True)
        return draft

    @contextmanager
    def create(self, draft: str, name: str) -> Iterator[BinaryIO]:
        """Opens a new file for writing; once the block is left, its content is on the disk."""
        with (self._root / draft / name).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _uncache(file.fileno())

    def take_over(self, draft: str, folder: str, name: str) -> None:
        """Gives a file of another folder a second name in a draft."""
        os.link(self._root / folder / name, self._root / draft / name, follow_symlinks=False)

    def publish(self, draft: str, folder: str, manifest: bytes) -> None:
        """Writes the manifest and gives the draft its place; at no moment is a folder there that is not whole."""
        with self.create(draft, MANIFEST_FILE) as file:
            file.write(manifest)
        _sync_folder(self._root / draft)
        place, aside = self._root / folder, self._root / (folder + _REPLACED)
        if os.path.lexists(place):
            _delete(aside)
            os.replace(place, aside)
        os.replace(self._root / draft, place)
        _sync_folder(self._root)
        # The new one has its place; what is left of the old one is cleared with the drafts.
        with contextlib.suppress(OSError):
            _delete(aside)

    def size(self, folder: str, name: str) -> int:
        """Bytes of a plain file in a plain folder."""
        _require(stat.S_ISDIR, self._root / folder, "not a plain folder")
        return _require(stat.S_ISREG, self._root / folder / name, "not a plain file").st_size

    @contextmanager
    def open(self, folder: str, name: str) -> Iterator[BinaryIO]:
        """Opens a plain file in a plain folder for reading."""
        self.size(folder, name)
        with (self._root / folder / name).open("rb") as file:
            yield file

    def remove(self, folder: str) -> None:
        """Deletes a folder or a draft; a crash meanwhile leaves no folder that is not whole."""
        aside = self._root / (folder.removesuffix(".tmp") + _REMOVED)
        _delete(aside)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._root / folder, aside)
        _delete(aside)

    def clear_drafts(self) -> None:
        """Deletes what crashes left; a folder that was set aside for one that never came gets its place back."""
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
    """Gives back the memory in which the system keeps a file that is on the disk by now.

    A checkpoint is hardly ever read; left in memory, it pushes out what is, and every next one must find room anew.
    """
    # Not every system has it, and it is no more than advice.
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
