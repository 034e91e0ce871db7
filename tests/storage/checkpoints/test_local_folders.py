import errno
import json
import os
import pickle
from operator import methodcaller
from pathlib import Path

import pytest

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import CheckpointStore


def test_a_tilde_of_an_unknown_user_is_part_of_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CheckpointStore("~nosuchuser/x").location == f"{tmp_path}/~nosuchuser/x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CheckpointStore("~/x").location == f"{tmp_path}/x"


NAMES = ("server.pt", "client_0003.pt", "client_0012.pt")


def test_a_draft_in_a_folder_leaves_the_old_one_whole(local, save):
    manifest = save(local, 5)

    local.write(local.draft("round_000005", attempt=2), "server.pt", methodcaller("write", b"new"))

    assert local.newest_whole(pytest.fail) == manifest


def test_files_are_synced_before_the_draft_is_renamed(local, tmp_path, monkeypatch, save):
    root, steps, fsync, replace = tmp_path / "checkpoints", [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), steps.append(os.fstat(fd).st_ino)))
    monkeypatch.setattr(os, "replace", lambda *paths: (replace(*paths), steps.append("replace")))

    save(local, 1)

    written = [f"round_000001/{name}" for name in (*NAMES, "manifest.json")]
    inodes = [(root / name).stat().st_ino for name in (*written, "round_000001", "")]
    assert steps == [*inodes[:-1], "replace", inodes[-1]]


def test_drafts_of_two_attempts_are_separate(local, manifest_of):
    drafts = [local.draft("round_000005", attempt) for attempt in (1, 2)]
    contents = [methodcaller("write", b"of %d" % attempt) for attempt in (1, 2)]
    shards = [local.write(draft, "server.pt", content) for draft, content in zip(drafts, contents, strict=True)]

    local.publish(drafts[1], manifest_of(5, shards[1:]))
    local.write(drafts[0], "server.pt", methodcaller("write", b"late"))

    assert local.read(local.newest_whole(pytest.fail), "server.pt") == b"of 2"


def test_a_relative_folder_stays_the_same_in_a_process_with_another_working_folder(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore("checkpoints")
    manifest = save(store, 3)
    content = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert pickle.loads(content).newest_whole(pytest.fail) == manifest


def test_disks_that_refuse_raise_os_errors(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = CheckpointStore(tmp_path / "file" / "checkpoints")

    with pytest.raises(NotADirectoryError):
        store.draft("round_000001", attempt=1)
    # A process on a node that does not share the folder.
    elsewhere = CheckpointStore(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        elsewhere.write("round_000001.attempt-1.tmp", "server.pt", methodcaller("write", b"x"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_raises_its_error(local, tmp_path):
    draft = local.draft("round_000001", attempt=1)
    (tmp_path / "checkpoints" / draft / "server.pt").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left") as raised:
        local.write(draft, "server.pt", methodcaller("write", b"x" * 100))
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("link", ["round_000002/server.pt", "round_000002/manifest.json", "round_000002"])
def test_links_are_not_read_and_not_followed_when_deleting(local, tmp_path, link, save, newest, golden, keys_of):
    old, new = save(local, 1), save(local, 2)
    path, outside = tmp_path / "checkpoints" / link, tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    lines = []

    assert local.newest_whole(lines.append) == old
    (line,) = lines
    assert keys_of(line) == ["checkpoints/round_000002"]
    golden(line)
    if link.endswith(".pt"):
        with pytest.raises(CheckpointError):
            local.read(new, "server.pt")
    for round in (2, 3, 4):
        save(local, round)
    local.prune(newest(local, 1), keep_best=False)
    assert outside.exists()
    assert not outside.is_dir() or sorted(path.name for path in outside.iterdir()) == sorted([*NAMES, "manifest.json"])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round_000004"]


def test_a_link_to_a_folder_inside_a_checkpoint_is_not_followed_when_deleting(local, tmp_path, save, newest):
    save(local, 1)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.tex").write_text("dear")
    (tmp_path / "checkpoints/round_000001/more").symlink_to(tmp_path / "outside")
    (tmp_path / "checkpoints/round_000001.removed.tmp").symlink_to(tmp_path / "outside")
    save(local, 2)

    local.prune(newest(local, 1), keep_best=False)
    local.clear_drafts()

    assert (tmp_path / "outside" / "thesis.tex").read_text() == "dear"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round_000002"]


def test_a_manifest_can_be_read_without_fedvtc(local, tmp_path, save):
    save(local, 1, accuracy=0.5)

    values = json.loads((tmp_path / "checkpoints/round_000001/manifest.json").read_text())

    assert values["accuracy"] == 0.5
    assert [shard["name"] for shard in values["shards"]] == list(NAMES)
