import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaml

from fedvtc.errors import RunExistsError, RunFolderError
from fedvtc.reporting.run_folders import find_runs
from fedvtc.storage import versions
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.run_status import RunStatus, true_status

CONFIG = {"run": {"name": "a", "seed": 3}, "training": {"optimizer": {"lr": 1e-5}}}


def described(folder):
    return json.loads((folder.path / "run.json").read_text())


def test_a_run_folder_describes_its_run(tmp_path):
    folder = RunFolder.create(tmp_path / "deep" / "outputs", "a", CONFIG, gpus=["H200"])
    description = json.loads((folder.path / "run.json").read_text())
    assert folder.path == tmp_path / "deep" / "outputs" / "a"
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == CONFIG
    assert re.fullmatch("[0-9a-f]{8}", folder.id)
    assert {key: description[key] for key in ("id", "name", "status")} == {
        "id": folder.id,
        "name": "a",
        "status": "running",
    }
    assert description["attempts"][0]["pid"] == os.getpid()
    assert description["versions"]["numpy"] == np.__version__
    assert description["hardware"]["cpus"] == os.cpu_count()
    assert description["hardware"]["memory_bytes"] > 2**28
    assert description["hardware"]["gpus"] == ["H200"]


def test_status_is_replaced_and_nothing_is_left_beside(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    before = json.loads((folder.path / "run.json").read_text())
    folder.set_status("finished")
    after = json.loads((folder.path / "run.json").read_text())
    assert after.pop("ended") >= before["created"]
    assert after == before | {"status": "finished"}
    assert {path.name for path in folder.path.iterdir()} == {"run.json", "config.yaml"}


def test_the_reason_of_an_end_lasts_until_the_next_attempt(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    folder.set_status("failed", reason="client 0, round 1, train: loss is nan")
    opened = RunFolder.open(folder.path)
    assert opened.true_status == RunStatus("failed", "client 0, round 1, train: loss is nan")
    with opened.lock():
        opened.begin_attempt(0)
        assert "reason" not in described(opened)
        opened.set_status("finished")
        assert opened.true_status == RunStatus("finished", holder=f"pid {os.getpid()} on {socket.gethostname()}")


def test_a_run_that_says_running_without_a_process_was_killed(tmp_path):
    ours = f"pid {os.getpid()} on {socket.gethostname()}"
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    with folder.lock():
        assert folder.true_status == RunStatus("running", holder=ours)
    # A reader of the status is not taken for the process of the run by another reader.
    with (folder.path / ".lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert folder.true_status == RunStatus("killed", f"{ours} ended without writing a status")
    assert true_status(folder.path, {}) == RunStatus("?")
    assert true_status(folder.path, {"status": "running", "attempts": []}).name == "killed"


def test_an_existing_run_is_never_overwritten(tmp_path, golden, keys_of):
    first = RunFolder.create(tmp_path, "a", CONFIG)
    before = {path: path.read_bytes() for path in first.path.iterdir()}
    with pytest.raises(RunExistsError) as caught:
        RunFolder.create(tmp_path, "a", CONFIG)
    assert keys_of(caught.value) == [f"{tmp_path}/a"]
    golden(caught.value)
    assert {path: path.read_bytes() for path in first.path.iterdir()} == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "c").touch()
    (tmp_path / "d").symlink_to("nowhere")
    for name in "bcd":
        with pytest.raises(RunExistsError) as caught:
            RunFolder.create(tmp_path, name, CONFIG)
        assert keys_of(caught.value) == [f"{tmp_path}/{name}"]
        golden(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_an_empty_folder_of_the_name_is_used(tmp_path):
    (tmp_path / "a").mkdir()
    assert RunFolder.create(tmp_path, "a", CONFIG).path == tmp_path / "a"
    assert RunFolder.open(tmp_path / "a").status == "running"


@pytest.mark.parametrize("round", range(4))
def test_a_process_killed_while_creating_the_folder_leaves_the_name_free(tmp_path, round):
    killed = """
import os, signal, sys
from fedvtc.storage import atomic, run_folder
calls = 0
def replace(source, target, original=os.replace):
    global calls
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    original(source, target)
os.replace = os.rename = replace
run_folder.RunFolder.create(sys.argv[1], "a", {"run": {}})
"""
    code = subprocess.run([sys.executable, "-c", killed, str(tmp_path), str(round)], check=False).returncode
    assert code == (-signal.SIGKILL if round < 3 else 0)
    if round < 3:
        assert RunFolder.create(tmp_path, "a", CONFIG).path.name == "a"
    assert RunFolder.open(tmp_path / "a").name == "a"
    assert find_runs([tmp_path]) == ([tmp_path / "a"], [])


def test_one_of_many_concurrent_creations_succeeds(tmp_path):
    def make(_):
        try:
            return RunFolder.create(tmp_path, "a", CONFIG).id
        except RunExistsError:
            return None

    with ThreadPoolExecutor(8) as pool:
        ids = [made for made in pool.map(make, range(40)) if made]
    assert ids == [RunFolder.open(tmp_path / "a").id]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, golden, keys_of):
    (tmp_path / "outputs").write_text("")
    for output_dir in (tmp_path / "outputs", tmp_path / "outputs" / "deeper"):
        with pytest.raises(RunFolderError) as caught:
            RunFolder.create(output_dir, "a", CONFIG)
        assert keys_of(caught.value) == [f"run.output_dir={output_dir}"]
        golden(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_write_permission_is_refused(tmp_path, keys_of):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create(tmp_path / "locked", "a", CONFIG)
    assert keys_of(caught.value) == [f"run.output_dir={tmp_path}/locked"]


def test_run_json_holds_neither_environment_nor_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-the-environment")
    monkeypatch.setattr("sys.argv", ["fedvtc", "run", "secret-of-the-command-line"])
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    folder.set_status("failed")
    assert "secret" not in (folder.path / "run.json").read_text()


def test_an_opened_folder_has_the_written_values(tmp_path):
    created = RunFolder.create(tmp_path, "a", CONFIG)
    created.set_status("interrupted")
    opened = RunFolder.open(str(created.path))
    assert (opened.path, opened.id, opened.name, opened.status) == (created.path, created.id, "a", "interrupted")
    assert opened.attempts == created.attempts
    assert len(opened.attempts) == 1


def test_a_new_attempt_is_added_and_sets_the_status_running(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    folder.set_status("failed")
    before = described(folder)
    again = RunFolder.open(folder.path)
    again.begin_attempt(resumed_round=7)
    after = described(folder)
    first, second = after.pop("attempts")
    assert first == before.pop("attempts")[0]
    assert second.pop("started") >= first["started"]
    assert second.pop("commits", None) == first.get("commits")
    assert second.pop("versions") == first["versions"] == before["versions"]
    assert second == {"host": socket.gethostname(), "pid": os.getpid(), "resumed_round": 7}
    del before["ended"]
    assert after == before | {"status": "running", "has_checkpoints": True}
    again.begin_attempt(resumed_round=0)
    assert len(RunFolder.open(folder.path).attempts) == 3
    assert not RunFolder.open(folder.path).has_checkpoints


def test_each_attempt_has_its_versions_and_the_run_those_of_the_newest(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    first = described(folder)["versions"]
    monkeypatch.setattr(versions, "installed", lambda: first | {"torch": "9.9.9"})
    folder.begin_attempt(resumed_round=1)
    assert [attempt["versions"]["torch"] for attempt in folder.attempts] == [first["torch"], "9.9.9"]
    assert described(folder)["versions"] == first | {"torch": "9.9.9"}


def test_only_packages_that_are_installed_then_and_now_can_change(monkeypatch):
    monkeypatch.setattr(versions, "installed", lambda: {"python": "3.11.7", "torch": "2.16.0", "timm": "1.0"})
    before = {"python": "3.11.7", "torch": "2.15.0", "timm": None, "ray": "2.60.0"}
    assert versions.changed(before) == ["torch 2.15.0 (now 2.16.0)"]


ATTEMPT = {"incidents": {"x": "1"}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\xff",
        "[]",
        '{"id": 3}',
        '{"id": "x", "name": "a"}',
        *(
            json.dumps({"id": "0a1b2c3d", "name": "a", "status": "failed"} | values)
            for values in ({"status": "lost"}, {}, {"attempts": []}, {"attempts": [ATTEMPT]})
        ),
    ],
)
def test_a_damaged_run_json_is_refused(tmp_path, content, golden, keys_of):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(tmp_path / "a")
    assert keys_of(caught.value) == [f"{tmp_path}/a/run.json"]
    golden(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        *({"id": id} for id in ("", "/../../victim", "0a1b2c3", "0a1b2c3d\n", "0A1B2C3D")),
        *({"name": name} for name in ("", ".", "..", "../victim/x", "/x")),
    ],
)
def test_a_run_json_whose_id_or_name_leads_elsewhere_is_refused(tmp_path, values, golden, keys_of):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    (folder.path / "run.json").write_text(json.dumps(described(folder) | values))
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(folder.path)
    assert keys_of(caught.value) == [f"{folder.path}/run.json"]
    golden(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_without_read_permission_is_refused(tmp_path, keys_of):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    for mode in (0o000, 0o300):
        folder.path.chmod(mode)
        with pytest.raises(RunFolderError) as caught:
            RunFolder.open(folder.path)
        assert keys_of(caught.value)[0].startswith(str(folder.path))
    folder.path.chmod(0o000)
    with pytest.raises(RunExistsError):
        RunFolder.create(tmp_path, "a", CONFIG)
    folder.path.chmod(0o700)


def test_a_path_without_a_run_is_refused(tmp_path, golden, keys_of):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("absent", "file", "empty"):
        with pytest.raises(RunFolderError) as caught:
            RunFolder.open(tmp_path / name)
        assert keys_of(caught.value) == [f"{tmp_path}/{name}"]
        golden(caught.value)


def test_a_replaced_config_is_read_back(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    folder.write_config({"run": {"rounds": 9}, "price": "$5 {each}"})
    assert yaml.safe_load(config_layer(folder.path).read_text()) == {"run": {"rounds": 9}, "price": "$5 {each}"}
    assert {path.name for path in folder.path.iterdir()} == {"run.json", "config.yaml"}


@pytest.mark.parametrize(
    "text",
    [
        "data: {root: '${oc.env:HOME}'}",
        "${oc.env:HOME}: 1",
        r'data: {root: "\x24{oc.env:HOME}"}',
        'data: {root: "\\u0024\\\n  {oc.env:HOME}"}',
        "include: [../other.yaml]",
        "data: &more {include: [x.yaml]}\n<<: *more",
        "a: [",
        "just words",
        None,
    ],
)
def test_a_config_that_no_run_wrote_is_refused(tmp_path, text, golden, keys_of):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    (folder.path / "config.yaml").unlink()
    if text is not None:
        (folder.path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError) as caught:
        config_layer(folder.path)
    assert keys_of(caught.value) == [f"{folder.path}/config.yaml"]
    golden(caught.value)


def test_one_process_at_a_time_writes_a_run(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    with folder.lock(), pytest.raises(RunFolderError), RunFolder.open(folder.path).lock():
        pass
    with folder.lock(), pytest.raises(RunFolderError), folder.lock():
        pass
    with folder.lock():
        folder.discard()
    with pytest.raises(RunFolderError), folder.lock():
        pass


def test_the_lock_reads_the_run_json_of_another_process(tmp_path):
    folder = RunFolder.create(tmp_path, "a", CONFIG)
    ours, theirs = RunFolder.open(folder.path), RunFolder.open(folder.path)
    with theirs.lock():
        theirs.begin_attempt(resumed_round=3)
        theirs.set_status("finished")
    with ours.lock():
        assert ours.status == "finished"
        ours.begin_attempt(resumed_round=5)
    assert [attempt.get("resumed_round") for attempt in RunFolder.open(folder.path).attempts] == [None, 3, 5]


def test_a_later_job_whose_folder_is_gone_starts_another_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDVTC_RUN_ID", "0a1b2c3d")
    monkeypatch.setenv("FEDVTC_ATTEMPT", "1")
    assert RunFolder.create(tmp_path, "a", CONFIG).id == "0a1b2c3d"
    monkeypatch.setenv("FEDVTC_ATTEMPT", "2")
    drawn = RunFolder.create(tmp_path, "b", CONFIG).id
    assert re.fullmatch("[0-9a-f]{8}", drawn)
    assert drawn != "0a1b2c3d"


def test_a_job_sets_the_id_of_its_run(tmp_path, monkeypatch, golden, keys_of):
    monkeypatch.setenv("FEDVTC_RUN_ID", "0a1b2c3d")
    assert RunFolder.create(tmp_path, "a", CONFIG).id == "0a1b2c3d"
    assert RunFolder.open(tmp_path / "a").id == "0a1b2c3d"
    for wrong in ("../../x", "0a1b2c3d\n", "0A1B2C3D"):
        monkeypatch.setenv("FEDVTC_RUN_ID", wrong)
        with pytest.raises(RunFolderError) as caught:
            RunFolder.create(tmp_path, "b", CONFIG)
        assert keys_of(caught.value) == [f"FEDVTC_RUN_ID={wrong!r}"]
        golden(caught.value)
    assert not (tmp_path / "b").exists()
