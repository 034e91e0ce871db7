"""Checkpoint stores on a path and behind URLs, and direct access to their files."""

from operator import methodcaller
from pathlib import Path

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from fedvtc.storage.checkpoints import CheckpointStore, Manifest

CONTENTS = {"server.pt": b"server of %d", "client_0003.pt": b"client 3 of %d" * 100_000, "client_0012.pt": b""}


def _manifest_of(round, shards=(), *, phase="round", accuracy=None, run_id="run"):
    return Manifest(run_id, round, phase, "f00d", accuracy, tuple(shards), {"torch": None}, "2025-01-02T03:04:05")


def _contents_of(round):
    return {name: content.replace(b"%d", str(round).encode()) for name, content in CONTENTS.items()}


def _save(store, round, **keys):
    draft = store.draft(_manifest_of(round, **keys).folder, attempt=1)
    shards = [store.write(draft, name, methodcaller("write", content)) for name, content in _contents_of(round).items()]
    manifest = _manifest_of(round, shards, **keys)
    store.publish(draft, manifest)
    return manifest


@pytest.fixture(scope="session")
def manifest_of():
    """A function that makes a manifest."""
    return _manifest_of


@pytest.fixture(scope="session")
def newest():
    """A function that returns the checkpoints of the newest `num` rounds."""
    return lambda store, num: [manifest for manifest in store.manifests(print) if manifest.phase == "round"][:num]


@pytest.fixture(scope="session")
def contents_of():
    """A function that returns the shards of `save` for a round, by name; the shard of client 12 is empty."""
    return _contents_of


@pytest.fixture(scope="session")
def save():
    """A function that saves one whole checkpoint."""
    return _save


class Place:
    """Direct access to the files of a store."""

    def __init__(self, location):
        self.fs, self.root = url_to_fs(str(location))

    def names(self, folder=""):
        return sorted(Path(path).name for path in self.fs.ls(f"{self.root}/{folder}", detail=False))

    def read(self, path):
        return self.fs.cat_file(f"{self.root}/{path}")

    def change(self, path, change):
        self.fs.pipe_file(f"{self.root}/{path}", change(self.read(path)))

    def delete(self, path):
        self.fs.rm_file(f"{self.root}/{path}")

    def create(self, path, content=b"x"):
        self.fs.makedirs(f"{self.root}/{path}".rsplit("/", 1)[0], exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{path}", content)


@pytest.fixture(params=["path", "file", "memory"])
def location(request, tmp_path):
    path = tmp_path / "run 1" / "checkpoints"
    if request.param != "memory":
        yield path if request.param == "path" else f"file://{path}"
        return
    yield f"memory:/{path}"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def store(location):
    return CheckpointStore(location)


@pytest.fixture(scope="session")
def open_place():
    return Place


@pytest.fixture
def place(location):
    return Place(location)


@pytest.fixture
def local(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")
