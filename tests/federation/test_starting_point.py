"""Where a run goes on from when its folder, its disk or its checkpoints are not as it left them."""

import errno
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from fedvtc.commands.doctor.run_folder import examine_run
from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.errors import CheckpointError, ClusterError, ConfigError, RunFolderError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.federation.starting_point import checkpoint_store
from fedvtc.federation.status import resume_command
from fedvtc.learning.methods import config_classes
from fedvtc.storage.append import AppendFile
from fedvtc.storage.run_folder import RunFolder

LONGER = "run.rounds=5"
SETTINGS = (
    "placement.pool=inline",
    "run.rounds=3",
    "data.name=npz",
    "partition.kind=iid",
    "population.num_clients=2",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "population.feature_size=6",
    "method.name=local",
    "evaluate.every=1",
)


@pytest.fixture(scope="module")
def words(tiny_folder):
    folder = tiny_folder("start")
    return [*SETTINGS, f"run.output_dir={folder}", f"data.path={folder / 'tiny.npz'}"]


@pytest.fixture(scope="module")
def start(words):
    """Runs three rounds; gives the folder."""

    def make(name, *overrides):
        config = load([], [*words, f"run.name={name}", *overrides], methods=config_classes())
        return run_federation(config, plain=True).folder

    return make


@pytest.fixture(scope="module")
def three(start):
    """A copy, under a name of its own, of the folder of a run of three rounds, which is made once."""
    made = start("three")
    return lambda name: Path(shutil.copytree(made, made.with_name(name)))


@pytest.fixture(scope="module")
def longer(start):
    """The records of five rounds that nothing happened to."""
    return results_of(start("five", LONGER))


def records_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def results_of(path):
    others = ("time/", "memory/", "incidents")
    return [{key: value for key, value in one.items() if not key.startswith(others)} for one in records_of(path)]


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}


def edit(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_disk_that_is_not_there_costs_no_record(start, longer, tmp_path):
    path = start("unmounted", f"checkpoint.dir={tmp_path / 'disk'}")
    (tmp_path / "disk").rename(tmp_path / "away")
    before = contents(path)
    with pytest.raises(CheckpointError, match="holds no checkpoint of the run, though its records reach round 3"):
        resume_federation(path, [LONGER], plain=True)
    assert contents(path) == before
    assert not (tmp_path / "disk").exists()
    (tmp_path / "away").rename(tmp_path / "disk")
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_a_place_that_is_empty_costs_no_record_where_there_has_been_a_whole_one(three, longer):
    path = three("emptied")
    for checkpoint in (path / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    with pytest.raises(CheckpointError, match="though its records reach round 3"):
        resume_federation(path, [LONGER], plain=True)
    edit(path / "run.json", status="running")
    assert [row.state for row in examine_run(path) if row.what == "resuming"] == ["fault"]
    (path / "metrics.jsonl").unlink()
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_a_run_that_has_had_no_checkpoint_starts_over_as_often_as_it_takes(start, longer, monkeypatch):
    path = start("none", "checkpoint.every=null")
    words = [LONGER, "checkpoint.every=1"]
    with monkeypatch.context() as patch:
        patch.setattr("fedvtc.federation.resume.attempt", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume_federation(path, words, plain=True)
    resume_federation(path, words, plain=True)
    assert results_of(path) == longer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "deadbeef"}, "is that of run deadbeef, not of "),
        ({"fingerprint": "0"}, "config.yaml is not the config that it was written with"),
        ({"shards": []}, "its manifest is not one of this run, it lacks client_0000.pt, "),
    ],
)
def test_a_manifest_that_can_be_read_and_is_wrong_is_passed_over_and_recorded(three, longer, change, said, capsys):
    path = three("-".join(change))
    edit(path / "checkpoints/round_000003/manifest.json", **change)
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer
    resumed = records_of(path)[2]
    assert (resumed["round"], resumed["incidents/checkpoints_damaged"]) == (3, 1)
    (text,) = resumed["incidents"]
    assert text.startswith(f"checkpoints/round_000003: {said}")
    assert text.endswith("; passed over")
    attempts = json.loads((path / "run.json").read_text())["attempts"]
    assert [(one.get("resumed_round"), one.get("incidents")) for one in attempts] == [
        (None, None),
        (2, {"checkpoints_damaged": 1}),
    ]
    assert "on the way: checkpoints damaged 1" in capsys.readouterr().out.splitlines()
    resume_federation(path, ["run.rounds=6"], plain=True)
    assert "on the way: checkpoints damaged 1" in capsys.readouterr().out.splitlines()


def test_the_doctor_shows_the_round_that_a_resume_continues_from(three):
    path = three("doctored")
    edit(path / "run.json", status="running")

    def resuming():
        (row,) = (row for row in examine_run(path) if row.what == "resuming")
        return re.findall(r"after round (\d) of 3", row.found)

    assert resuming() == ["3"]
    records = (path / "metrics.jsonl").read_text()
    # Without the records of round 3 and of the end.
    (path / "metrics.jsonl").write_text("".join(records.splitlines(keepends=True)[:2]))
    assert resuming() == ["2"]
    (path / "metrics.jsonl").write_text(records)
    edit(path / "checkpoints/round_000003/manifest.json", run_id="deadbeef")
    assert resuming() == ["2"]


@pytest.mark.parametrize("step", ["begin_attempt", "write_config"])
def test_a_run_whose_disk_was_full_as_it_was_made_longer_can_be_all_the_same(three, longer, monkeypatch, step):
    path = three(step)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, step, full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            resume_federation(path, [LONGER], plain=True)
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_checkpoints_stay_as_long_as_records_wait(start, longer, monkeypatch):
    write = AppendFile._write

    def full(self, file, lines):
        if self._path.name == "metrics.jsonl" and os.fstat(file).st_size and b'"round": 5' not in lines:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, file, lines)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "_write", full)
        path = start("waiting", LONGER, "checkpoint.keep_best=false")
    # As a kill would leave it: nothing after round 1 had come to the disk.
    assert [record["round"] for record in records_of(path)] == [1]
    kept = {file.name for file in (path / "checkpoints").iterdir()}
    assert kept == {"final", *(f"round_00000{round}" for round in (1, 4, 5))}
    edit(path / "run.json", status="running")
    resume_federation(path, plain=True)
    assert results_of(path) == longer
    assert {file.name for file in (path / "checkpoints").iterdir()} == {"final", "round_000004", "round_000005"}


def test_lines_that_no_run_writes_are_passed_over(three, longer):
    path = three("strange")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b"[" * 100_000 + b"\n")
    with (path / "clients.csv").open("ab") as file:
        file.write(b'3,"round\rx,0\n')
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


@pytest.mark.parametrize("values", [{"name": "../victim"}, {"id": "/../../victim"}])
def test_no_folder_is_deleted_on_the_word_of_a_run_json(start, tmp_path, values):
    path = start(f"led-{next(iter(values))}", f"checkpoint.dir={tmp_path / 'disk'}", "run.rounds=1")
    edit(path / "run.json", status="running", **values)
    (path / "metrics.jsonl").unlink()
    described = json.loads((path / "run.json").read_text())
    victim = Path(os.path.normpath(tmp_path / "disk" / f"{described['name']}-{described['id']}"))
    (victim / "final").mkdir(parents=True)
    (victim / "final/mine.txt").write_text("mine\n")
    with pytest.raises(RunFolderError, match=f"^{path}/run.json: damaged"):
        resume_federation(path, ["run.rounds=2"], plain=True)
    assert (victim / "final/mine.txt").read_text() == "mine\n"


def test_a_name_too_long_for_a_folder_is_one_line_where_a_run_is_looked_for_too(words):
    config = load([], [*words, f"run.name={'x' * 300}", "run.resume=auto"], methods=config_classes())
    with pytest.raises(RunFolderError, match=r"cannot be written \(File name too long\)"):
        run_federation(config, plain=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_run_that_may_not_be_looked_for_is_one_line(words, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o000)
    where = f"run.output_dir={tmp_path / 'locked'}"
    config = load([], [*words, where, "run.name=a", "run.resume=auto"], methods=config_classes())
    with pytest.raises(RunFolderError, match=r"cannot be written \(Permission denied\)"):
        run_federation(config, plain=True)


@pytest.mark.parametrize("name", [".lock", ".config.tmp.yaml", ".run.tmp.json", "metrics.jsonl", "checkpoints"])
def test_a_link_in_a_folder_is_refused_and_what_it_leads_to_stays(three, tmp_path, name):
    path = three(f"link{name.replace('.', '-')}")
    target = tmp_path / "mine"
    target.write_text("mine\n")
    (path / name).unlink() if (path / name).is_file() else shutil.rmtree(path / name, ignore_errors=True)
    (path / name).symlink_to(target)
    with pytest.raises(RunFolderError, match=f"^{path / name}: is a link, which no run makes and none follows"):
        resume_federation(path, [LONGER], plain=True)
    assert target.read_text() == "mine\n"


def test_a_cluster_that_a_folder_names_is_asked_for_by_its_user_only(three, monkeypatch):
    path = three("attached")
    file = path / "config.yaml"
    file.write_text(file.read_text().replace("address: null", "address: 10.0.0.9:6379").replace("inline", "ray"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = contents(path)
    for words in ([LONGER], [LONGER, "cluster.num_cpus=2"]):
        with pytest.raises(ConfigError, match=f"^cluster.address: 10.0.0.9:6379 is named by {file} only, and a clust"):
            resume_federation(path, words, plain=True)
    assert contents(path) == before
    config = load([file], ["tracking.trackers=[wandb,mine.trackers:Mine]"], methods=config_classes())
    # A finished run needs no cluster; and one that is given is tried.
    assert resume_federation(path, plain=True).record is None
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        resume_federation(path, [LONGER, "cluster={address: '127.0.0.1:9'}"], plain=True)
    words = "'tracking.trackers=[wandb,mine.trackers:Mine]' cluster.address=10.0.0.9:6379"
    assert resume_command(config, path) == f"fedvtc resume {path} {words}"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert resume_command(load([file], [], methods=config_classes()), path) == f"fedvtc resume {path}"


def test_a_server_that_a_folder_names_is_asked_by_its_user_only(three):
    path = three("behind-a-server")
    file = path / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ftp://127.0.0.1:{server.getsockname()[1]}/x"
        file.write_text(file.read_text().replace("\n  dir: null\n", f"\n  dir: {url}\n"))
        config = load([file], [], methods=config_classes())
        assert config.checkpoint.dir == url
        before = contents(path)
        with pytest.raises(ConfigError, match=f"^checkpoint.dir: {url} is named by {file} only, and its server"):
            resume_federation(path, [LONGER], plain=True)
        # Nor is what lies there looked for where the run is to have its checkpoints elsewhere.
        with pytest.raises(CheckpointError, match="holds no checkpoint of the run, though its records reach round 3"):
            resume_federation(path, [LONGER, f"checkpoint.dir={path.parent}"], plain=True)
        (row,) = (row for row in examine_run(path) if row.what == "checkpoints")
        assert (row.state, row.fix) == ("warning", f"fedvtc doctor {path} checkpoint.dir={url}")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert contents(path) == before
        assert resume_command(config, path) == f"fedvtc resume {path} checkpoint.dir={url}"
    # It is tried, and there is none any more.
    with pytest.raises(CheckpointError, match=f"^{url}.* cannot be used as a checkpoint folder"):
        resume_federation(path, [LONGER, f"checkpoint.dir={url}"], plain=True)
    (row,) = (row for row in examine_run(path, [f"checkpoint.dir={url}"]) if row.what == "checkpoints")
    assert (row.state, "cannot be used as a checkpoint folder" in row.found) == ("fault", True)


@pytest.mark.parametrize("url", ["memory://", "memory:///"])
def test_the_root_of_a_file_system_is_a_place_for_checkpoints(words, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    name = f"rooted-{len(url)}"
    config = load([], [*words, f"checkpoint.dir={url}", "run.rounds=1", f"run.name={name}"], methods=config_classes())
    folder = RunFolder.open(run_federation(config, plain=True).folder)
    assert checkpoint_store(config, folder).location == f"memory:///{name}-{folder.id}"
    assert [manifest.round for manifest in checkpoint_store(config, folder).manifests()] == [1, 1]
    assert not list(tmp_path.glob("memory*"))


def test_a_change_that_cannot_be_ends_the_command_with_code_2(three, capsys):
    path = three("forbidden")
    before = contents(path)
    assert main(["resume", str(path), "run.seed=9", LONGER]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedvtc: run.seed: ")
    assert "9" in line
    assert contents(path) == before
