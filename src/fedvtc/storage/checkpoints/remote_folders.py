"""Checkpoint folders behind a URL. Object stores cannot rename, so the manifest, written last, makes a folder whole."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO

from fedvtc.storage.checkpoints.manifest import FOLDER_NAME, MANIFEST_FILE


class RemoteFolders:
    """Folders of files under one root of an fsspec file system.

    Every method raises OSError, also for what the file system's library raises of its own kind.

    Args:
        file_system: an `fsspec.AbstractFileSystem`.
        root: path in it.
    """

    def __init__(self, file_system: Any, root: str) -> None:
        self._fs, self._root = file_system, root.rstrip("/")

    def names(self) -> list[str]:
        """The names under the root; none where it does not exist."""
        with _only_os_errors():
            # Other processes write too.
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]

    def begin(self, folder: str, attempt: int) -> str:
        """Empties the folder's own place, which serves as the draft of every attempt, and returns its name."""
        self.remove(folder)
        with _only_os_errors():
            self._fs.makedirs(self._path(folder), exist_ok=True)
        return folder

    @contextmanager
    def create(self, draft: str, name: str) -> Iterator[BinaryIO]:
        """Opens a new file for writing; once the block is left, the store has taken its content.

        It is sent as a whole and then only: who writes it need not wait for a network.
        """
        with BytesIO() as file:
            yield file
            with _only_os_errors():
                self._fs.pipe_file(self._path(draft, name), file.getvalue())

    def take_over(self, draft: str, folder: str, name: str) -> None:
        """Has the store copy a file of another folder; nothing is sent."""
        with _only_os_errors():
            self._fs.cp_file(self._path(folder, name), self._path(draft, name))

    def publish(self, draft: str, folder: str, manifest: bytes) -> None:
        """Writes the manifest."""
        assert draft == folder
        with self.create(draft, MANIFEST_FILE) as file:
            file.write(manifest)

    def size(self, folder: str, name: str) -> int:
        """Bytes of a file."""
        with _only_os_errors():
            self._fs.invalidate_cache()
            return int(self._fs.info(self._path(folder, name))["size"])

    @contextmanager
    def open(self, folder: str, name: str) -> Iterator[BinaryIO]:
        """Opens a file for reading."""
        with _only_os_errors(), self._fs.open(self._path(folder, name), "rb") as file:
            yield file

    def remove(self, folder: str) -> None:
        """Deletes a folder, its manifest first."""
        with _only_os_errors():
            self._fs.invalidate_cache()
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(folder, MANIFEST_FILE))
            with suppress(FileNotFoundError):
                self._fs.rm(self._path(folder), recursive=True)

    def clear_drafts(self) -> None:
        """Deletes the folders that have no manifest."""
        for folder in filter(FOLDER_NAME.fullmatch, self.names()):
            try:
                self.size(folder, MANIFEST_FILE)
            except FileNotFoundError:
                self.remove(folder)

    def _path(self, *parts: str) -> str:
        return "/".join([self._root, *parts])


@contextmanager
def _only_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Absent credentials, for one, are an error of the library's own kind.
        raise OSError(f"{type(error).__name__}: {error}") from error
