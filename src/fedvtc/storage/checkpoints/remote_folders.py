"""Stores checkpoint folders behind a URL. Object stores cannot rename: the manifest, written last, marks completion."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from fedvtc.errors import CheckpointError, first_line
from fedvtc.storage.checkpoints.manifest import FOLDER_NAME, MANIFEST_FILE


def open_url(url: str) -> tuple[Any, str]:
    """Opens the file system of an fsspec URL.

    Returns:
        The file system, an `fsspec.AbstractFileSystem`, and the path in it.

    Raises:
        CheckpointError: if the URL chains file systems, its file system is unknown or not installed, or its server does
            not answer.
    """
    if "::" in url:
        problem = "cannot be used as a checkpoint folder (it chains file systems)"
        raise CheckpointError(f"{url}: {problem}. Name one file system only, such as s3://bucket/runs.")
    try:
        file_system, root = url_to_fs(url)
    except Exception as error:  # Some file systems connect at once, and raise errors of their own libraries.
        raise CheckpointError(f"{url}: cannot be used as a checkpoint folder ({first_line(error)})") from error
    return file_system, str(root)


class RemoteFolders:
    """Folders of files under one root of an fsspec file system.

    All methods raise OSError, also for other errors of the file system's library.

    Args:
        file_system: an `fsspec.AbstractFileSystem`.
        root: path of the checkpoints in the file system.
    """

    def __init__(self, file_system: Any, root: str) -> None:
        self._fs, self._root = file_system, root.rstrip("/")

    def names(self) -> list[str]:
        """Returns the names under the root; none if the root does not exist."""
        with _only_os_errors():
            # Other processes write here too.
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]

    def begin(self, folder: str, attempt: int) -> str:
        """Empties the checkpoint folder, which is the draft of every attempt, and returns its name."""
        self.remove(folder)
        with _only_os_errors():
            self._fs.makedirs(self._path(folder), exist_ok=True)
        return folder

    @contextmanager
    def create(self, draft: str, name: str) -> Iterator[BinaryIO]:
        """Opens a new file of a draft for writing; after the block, the store has the content.

        The content is sent as a whole after the block, so that the writer does not wait for a network.
        """
        with BytesIO() as file:
            yield file
            with _only_os_errors():
                self._fs.pipe_file(self._path(draft, name), file.getvalue())

    def take_over(self, draft: str, folder: str, sizes: Mapping[str, int]) -> set[str]:
        """Copies files of an earlier checkpoint folder inside the store, without sending the contents.

        The requests run several at a time, if the file system can do that.

        Args:
            draft: name of the draft.
            folder: name of the checkpoint folder.
            sizes: bytes of each file; a file of another size is damaged.

        Returns:
            The names of the files that are in the draft with their sizes.
        """
        sources, copies = ([self._path(parent, name) for name in sizes] for parent in (folder, draft))
        # The error of one copy does not tell which other copies succeeded, but the listing does.
        with suppress(Exception):
            self._fs.copy(sources, copies, on_error="ignore")
        with _only_os_errors():
            self._fs.invalidate_cache()
            listed = self._fs.ls(self._path(draft), detail=True)
        found = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in listed}
        return {name for name, num_bytes in sizes.items() if found.get(name) == num_bytes}

    def publish(self, draft: str, folder: str, manifest: bytes) -> None:
        """Writes the manifest, which completes the checkpoint."""
        assert draft == folder
        with self.create(draft, MANIFEST_FILE) as file:
            file.write(manifest)

    def size(self, folder: str, name: str) -> int:
        """Returns the bytes of a file."""
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
        """Deletes the folders without a manifest."""
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
    except Exception as error:  # Libraries raise their own errors, for instance about missing credentials.
        raise OSError(f"{type(error).__name__}: {error}") from error
