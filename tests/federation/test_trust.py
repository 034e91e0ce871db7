"""Run folders of another user: refused without `--trust`; the user's own folders need nothing retyped."""

import os
import shlex
import shutil
import socket
from pathlib import Path

import pytest

from fedvtc.commands.doctor.run_folder import examine_run
from fedvtc.commands.main import main
from fedvtc.errors import CheckpointError, ClusterError, RunFolderError
from fedvtc.federation.resume import resume_federation
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import check_owner, is_owned, resume_command, user_name

OTHER_UID = 54321
LONGER = "run.rounds=2"
SETTINGS = (
    "placement.pool=inline",
    "run.rounds=1",
    "data.name=npz",
    "partition.kind=iid",
    "population.num_clients=2",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "population.feature_size=6",
    "method.name=local",
    "--plain",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture(scope="module")
def words(tiny_words):
    return [*SETTINGS, *tiny_words]


@pytest.fixture(scope="module")
def one(words):
    """The folder of a run of one round."""
    assert main(["run", *words, "run.name=one"]) == 0
    return Path(words[-2].partition("=")[2]) / "one"


@pytest.fixture
def copy(one):
    """Makes a copy of the run folder under another name, with changes of words in its config.yaml."""

    def make(name, changes=()):
        path = Path(shutil.copytree(one, one.with_name(name)))
        file = path / "config.yaml"
        for old, new in changes:
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
        return path

    return make


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@needs_root
@pytest.mark.parametrize("name", [".", "run.json", "config.yaml"])
def test_a_folder_or_file_of_another_user_is_refused_without_trust(copy, capsys, golden, keys_of, name):
    path = copy(f"foreign-{name.strip('.')}")
    os.chown(path / name, OTHER_UID, -1)
    before = contents(path)
    assert not is_owned(path)

    assert main(["resume", str(path), LONGER, "--plain"]) == 2

    error = capsys.readouterr().err
    assert keys_of(error) == [str(path / name)]
    golden(error, {str(path.parent): "OUTPUTS"})
    assert contents(path) == before
    assert main(["resume", str(path), LONGER, "--plain", "--trust"]) == 0
    assert RunFolder.open(path).status == "finished"
    assert len(RunFolder.open(path).attempts) == 2


@needs_root
def test_a_run_that_is_found_by_name_needs_trust_too(copy, words, capsys, keys_of):
    path = copy("by-name")
    os.chown(path, OTHER_UID, -1)
    command = ["run", *words, LONGER, "run.name=by-name", "run.resume=auto"]

    assert main(command) == 2
    assert keys_of(capsys.readouterr().err) == [str(path)]
    assert main([*command, "--trust"]) == 0


@needs_root
def test_other_files_may_belong_to_anybody(copy):
    path = copy("mixed")
    for file in (path / "metrics.jsonl", path / "checkpoints"):
        os.chown(file, OTHER_UID, -1)

    assert is_owned(path)
    check_owner(path, trusted=False)


def test_an_owned_folder_without_config_is_owned(copy):
    path = copy("no-config")
    (path / "config.yaml").unlink()

    assert is_owned(path)


def test_the_cluster_of_an_owned_folder_is_used(copy, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = copy("attached", [("address: null", "address: 127.0.0.1:9"), ("pool: inline", "pool: ray")])

    with pytest.raises(ClusterError):
        resume_federation(path, [LONGER], plain=True)


def test_the_checkpoint_server_of_an_owned_folder_is_asked(copy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ftp://127.0.0.1:{server.getsockname()[1]}/x"
    path = copy("server", [("\n  dir: null\n", f"\n  dir: {url}\n")])

    with pytest.raises(CheckpointError) as error:
        resume_federation(path, [LONGER], plain=True)

    assert str(error.value).startswith(url)
    (row,) = (row for row in examine_run(path) if row.what == "checkpoints")
    assert row.state == "fault"


@needs_root
def test_the_checkpoint_server_of_another_user_is_not_asked(copy, golden):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        path = copy("foreign-server", [("\n  dir: null\n", f"\n  dir: ftp://127.0.0.1:{port}/x\n")])
        os.chown(path, OTHER_UID, -1)
        with pytest.raises(RunFolderError):
            resume_federation(path, [LONGER], plain=True)
        (row,) = (row for row in examine_run(path) if row.what == "checkpoints")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (row.state, row.fix) == ("warning", f"fedvtc doctor {path} --trust")
    golden(f"{row.found}\n{row.fix}", {str(path.parent): "OUTPUTS", str(port): "PORT"})
    # With --trust the server is asked, and nothing listens there any more.
    (row,) = (row for row in examine_run(path, trusted=True) if row.what == "checkpoints")
    assert row.state == "fault"


@needs_root
def test_the_list_resumes_the_run_of_another_user_with_trust(copy, capsys):
    path = copy("foreign-list", [])
    (path / "run.json").write_text((path / "run.json").read_text().replace('"finished"', '"failed"'))
    os.chown(path, OTHER_UID, -1)
    for command in ("list", "runs", str(path)), ("show", str(path)):
        assert main(command) == 0
        assert f"fedvtc resume {path} --trust" in capsys.readouterr().out


def test_the_resume_command_is_quoted_for_a_shell():
    words = shlex.split(resume_command(Path("/my outputs/a b")))
    assert words == ["fedvtc", "resume", "/my outputs/a b"]


def test_a_user_without_a_name_is_shown_by_number():
    assert user_name(OTHER_UID) == f"user {OTHER_UID}"
