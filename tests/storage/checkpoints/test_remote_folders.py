import socket
from operator import methodcaller

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.remote_folders import RemoteFolders


def test_a_begun_draft_behind_a_url_claims_nothing(tmp_path, save):
    store = CheckpointStore(f"memory:/{tmp_path}/checkpoints")
    save(store, 5)
    store.write(store.draft("round_000005", attempt=2), "server.pt", methodcaller("write", b"new"))
    lines = []

    assert store.newest_whole(lines.append) is None
    assert lines == ["checkpoints/round_000005: manifest.json is missing"]


class Stubborn(MemoryFileSystem):
    """Fails as S3 does without credentials: with an error of its library's own kind."""

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


def test_a_url_without_a_file_system_is_a_user_error():
    with pytest.raises(CheckpointError, match=r"^nosuch://bucket/run: cannot be used as a checkpoint folder"):
        CheckpointStore("nosuch://bucket/run")


def test_a_url_that_lacks_what_its_file_system_needs_is_a_user_error():
    with pytest.raises(
        CheckpointError, match=r"^github://x: cannot be used as a checkpoint folder \(.*'org' and 'repo'\)$"
    ):
        CheckpointStore("github://x")


class Refusing(MemoryFileSystem):
    """Fails as FTP does with a wrong password: with an error of its library's own kind."""

    protocol = "refusing"

    def __init__(self):
        raise LookupError("530 Login incorrect.\nBye.")


def test_a_url_whose_server_refuses_the_password_is_one_line():
    register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore("refusing://runs")
    assert str(caught.value) == "refusing://runs: cannot be used as a checkpoint folder (530 Login incorrect.)"


@pytest.mark.parametrize("url", ["simplecache::memory://runs", "memory::file:///runs"])
def test_file_systems_in_a_chain_are_refused(url):
    with pytest.raises(CheckpointError, match=rf"^{url}: .*\(it chains file systems\)\. Name one only, such as s3://"):
        CheckpointStore(url)


class Unremovable(MemoryFileSystem):
    """Loses the connection after the first of two requests."""

    protocol = "unremovable"

    def rm(self, path, recursive=False, maxdepth=None):
        raise TimeoutError


def test_a_url_whose_server_does_not_answer_is_a_user_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ftp://127.0.0.1:{listener.getsockname()[1]}/runs"
    with pytest.raises(CheckpointError, match=rf"^{url}: cannot be used as a checkpoint folder \(.*refused\)$"):
        CheckpointStore(url)


def test_behind_a_url_the_manifest_is_deleted_first(tmp_path, save, open_place):
    url = f"memory:/{tmp_path}/checkpoints"
    save(CheckpointStore(url), 1)
    folders = RemoteFolders(Unremovable(), f"{tmp_path}/checkpoints")

    with pytest.raises(TimeoutError):
        folders.remove("round_000001")

    assert open_place(url).names("round_000001") == ["client_0003.pt", "client_0012.pt", "server.pt"]
