import socket
from operator import methodcaller

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.remote_folders import RemoteFolders


def test_a_draft_behind_a_url_is_no_checkpoint(tmp_path, save, golden, keys_of):
    store = CheckpointStore(f"memory:/{tmp_path}/checkpoints")
    save(store, 5)
    store.write(store.draft("round_000005", attempt=2), "server.pt", methodcaller("write", b"new"))
    lines = []

    assert store.newest_whole(lines.append) is None
    (line,) = lines
    assert keys_of(line) == ["checkpoints/round_000005"]
    golden(line)


class Stubborn(MemoryFileSystem):
    """Raises an error of its own library, as S3 does without credentials."""

    protocol = "stubborn"

    def ls(self, path, detail=True, **keys):
        raise LookupError("Unable to locate credentials")

    info = pipe_file = ls


def test_errors_of_a_url_s_library_become_os_errors():
    folders = RemoteFolders(Stubborn(), "/checkpoints")

    def write():
        with folders.create("final", "server.pt") as file:
            file.write(b"")

    for reach in (
        folders.names,
        write,
        lambda: folders.size("final", "server.pt"),
        folders.clear_drafts,
    ):
        with pytest.raises(OSError, match="LookupError: Unable to locate credentials"):
            reach()


@pytest.mark.parametrize("url", ["nosuch://bucket/run", "simplecache::memory://runs", "memory::file:///runs"])
def test_a_url_of_no_usable_file_system_is_refused(url, golden):
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore(url)
    assert str(caught.value).startswith(f"{url}: ")
    golden(caught.value)


def test_a_url_without_a_required_part_is_refused():
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore("github://x")
    assert str(caught.value).startswith("github://x: ")


class Refusing(MemoryFileSystem):
    """Raises an error of its own library, as FTP does with a wrong password."""

    protocol = "refusing"

    def __init__(self):
        raise LookupError("530 Login incorrect.\nBye.")


def test_a_url_whose_server_refuses_the_password_is_refused(golden):
    register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore("refusing://runs")
    golden(caught.value)


class Unremovable(MemoryFileSystem):
    """Loses the connection on every removal of a folder."""

    protocol = "unremovable"

    def rm(self, path, recursive=False, maxdepth=None):
        raise TimeoutError


def test_a_url_whose_server_does_not_answer_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ftp://127.0.0.1:{listener.getsockname()[1]}/runs"
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore(url)
    assert str(caught.value).startswith(f"{url}: ")


def test_behind_a_url_the_manifest_is_deleted_first(tmp_path, save, open_place):
    url = f"memory:/{tmp_path}/checkpoints"
    save(CheckpointStore(url), 1)
    folders = RemoteFolders(Unremovable(), f"{tmp_path}/checkpoints")

    with pytest.raises(TimeoutError):
        folders.remove("round_000001")

    assert open_place(url).names("round_000001") == ["client_0003.pt", "client_0012.pt", "server.pt"]
