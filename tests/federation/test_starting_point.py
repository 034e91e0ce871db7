"""The checkpoint that a run resumes from when its folder, its disk or its checkpoints have changed."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from fedvtc.commands.doctor.run_folder import examine_run
from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.errors import CheckpointError, RunFolderError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.federation.starting_point import checkpoint_store
from fedvtc.learning.methods import config_classes
from fedvtc.learning.metrics import MEASURED
from fedvtc.storage import versions
from fedvtc.storage.append import AppendFile
from fedvtc.storage.confusions import evaluations
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
def words(tiny_words):
    return [*SETTINGS, *tiny_words]


@pytest.fixture(scope="module")
def start(words):
    """Runs three rounds; returns the run folder."""

    def make(name, *overrides):
        config = load([], [*words, f"run.name={name}", *overrides], methods=config_classes())
        return run_federation(config, plain=True).folder

    return make


@pytest.fixture(scope="module")
def three(start):
    """A copy, under a new name, of the folder of a run of three rounds, which is made once."""
    made = start("three")
    return lambda name: Path(shutil.copytree(made, made.with_name(name)))


@pytest.fixture(scope="module")
def longer(start):
    """The records of an uninterrupted run of five rounds."""
    return results_of(start("five", LONGER))


def records_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def results_of(path):
    others = (*MEASURED, "incidents")
    return [{key: value for key, value in one.items() if not key.startswith(others)} for one in records_of(path)]


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}


def edit(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_resume_without_the_checkpoint_disk_is_refused_and_loses_no_record(start, longer, tmp_path, golden):
    path = start("unmounted", f"checkpoint.dir={tmp_path / 'disk'}")
    (tmp_path / "disk").rename(tmp_path / "away")
    before = contents(path)
    with pytest.raises(CheckpointError) as error:
        resume_federation(path, [LONGER], plain=True)
    golden(error.value, {str(path.parent): "OUTPUTS", RunFolder.open(path).id: "RUN_ID"})
    assert contents(path) == before
    assert not (tmp_path / "disk").exists()
    (tmp_path / "away").rename(tmp_path / "disk")
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_a_resume_after_all_checkpoints_were_deleted_is_refused_and_loses_no_record(three, longer):
    path = three("emptied")
    for checkpoint in (path / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    with pytest.raises(CheckpointError):
        resume_federation(path, [LONGER], plain=True)
    edit(path / "run.json", status="running")
    assert [row.state for row in examine_run(path) if row.what == "resuming"] == ["fault"]
    (path / "metrics.jsonl").unlink()
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_a_run_that_never_had_a_checkpoint_starts_over(start, longer, monkeypatch):
    path = start("none", "checkpoint.every=null")
    words = [LONGER, "checkpoint.every=1"]
    with monkeypatch.context() as patch:
        patch.setattr("fedvtc.federation.resume.attempt", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume_federation(path, words, plain=True)
    resume_federation(path, words, plain=True)
    assert results_of(path) == longer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "deadbeef"}, "belongs to run deadbeef, not to "),
        ({"fingerprint": "0"}, "was written with another config than config.yaml"),
        ({"shards": []}, "its manifest does not list the files of this run (missing: server.pt)"),
    ],
)
def test_a_checkpoint_with_a_wrong_manifest_is_skipped_and_recorded(three, longer, change, said, capsys):
    path = three("-".join(change))
    edit(path / "checkpoints/round_000003/manifest.json", **change)
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer
    resumed = records_of(path)[2]
    assert (resumed["round"], resumed["incidents/checkpoints_damaged"]) == (3, 1)
    (text,) = resumed["incidents"]
    assert text.startswith(f"checkpoints/round_000003: {said}")
    assert text.endswith("; skipped")
    attempts = json.loads((path / "run.json").read_text())["attempts"]
    assert [(one.get("resumed_round"), one.get("incidents")) for one in attempts] == [
        (None, None),
        (2, {"checkpoints_damaged": 1}),
    ]
    assert "incidents: checkpoints damaged 1" in capsys.readouterr().out.splitlines()
    resume_federation(path, ["run.rounds=6"], plain=True)
    assert "incidents: checkpoints damaged 1" in capsys.readouterr().out.splitlines()


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
def test_a_resume_that_failed_on_a_full_disk_can_be_repeated(three, longer, monkeypatch, golden, step):
    path = three(step)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, step, full)
        with pytest.raises(RunFolderError) as error:
            resume_federation(path, [LONGER], plain=True)
        golden(error.value, {str(path.parent): "OUTPUTS"})
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


def test_checkpoints_are_kept_while_records_wait_for_the_disk(start, longer, monkeypatch):
    write = AppendFile._write

    def full(self, file, lines):
        if self._path.name == "metrics.jsonl" and os.fstat(file).st_size and b'"round": 5' not in lines:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, file, lines)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "_write", full)
        path = start("waiting", LONGER, "checkpoint.keep_best=false")
    # As after a kill: the disk has no record after round 1.
    assert [record["round"] for record in records_of(path)] == [1]
    kept = {file.name for file in (path / "checkpoints").iterdir()}
    assert kept == {"final", *(f"round_00000{round}" for round in (1, 4, 5))}
    edit(path / "run.json", status="running")
    resume_federation(path, plain=True)
    assert results_of(path) == longer
    assert {file.name for file in (path / "checkpoints").iterdir()} == {"final", "round_000004", "round_000005"}


def test_lines_that_no_run_writes_are_dropped(three, longer):
    path = three("strange")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b"[\n")
    with (path / "clients.csv").open("ab") as file:
        file.write(b'3,"round\rx,0\n')
    resume_federation(path, [LONGER], plain=True)
    assert results_of(path) == longer


@pytest.mark.parametrize("values", [{"name": "../victim"}, {"id": "/../../victim"}])
def test_a_run_json_cannot_name_a_folder_to_delete(start, tmp_path, keys_of, values):
    path = start(f"led-{next(iter(values))}", f"checkpoint.dir={tmp_path / 'disk'}", "run.rounds=1")
    edit(path / "run.json", status="running", **values)
    (path / "metrics.jsonl").unlink()
    described = json.loads((path / "run.json").read_text())
    victim = Path(os.path.normpath(tmp_path / "disk" / f"{described['name']}-{described['id']}"))
    (victim / "final").mkdir(parents=True)
    (victim / "final/mine.txt").write_text("mine\n")
    with pytest.raises(RunFolderError) as error:
        resume_federation(path, ["run.rounds=2"], plain=True)
    assert keys_of(error.value) == [f"{path}/run.json"]
    assert (victim / "final/mine.txt").read_text() == "mine\n"


def test_a_name_too_long_for_a_folder_is_refused_with_resume_auto_too(words, keys_of):
    config = load([], [*words, f"run.name={'x' * 300}", "run.resume=auto"], methods=config_classes())
    with pytest.raises(RunFolderError) as error:
        run_federation(config, plain=True)
    assert keys_of(error.value)[0].startswith("run.output_dir=")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_an_output_folder_that_cannot_be_read_is_refused(words, tmp_path, keys_of):
    (tmp_path / "locked").mkdir(mode=0o000)
    where = f"run.output_dir={tmp_path / 'locked'}"
    config = load([], [*words, where, "run.name=a", "run.resume=auto"], methods=config_classes())
    with pytest.raises(RunFolderError) as error:
        run_federation(config, plain=True)
    assert keys_of(error.value) == [f"run.output_dir={tmp_path / 'locked'}"]


@pytest.mark.parametrize("name", [".lock", ".config.tmp.yaml", ".run.tmp.json", "metrics.jsonl", "checkpoints"])
def test_a_link_in_a_run_folder_is_refused_and_its_target_stays(three, tmp_path, keys_of, name):
    path = three(f"link{name.replace('.', '-')}")
    target = tmp_path / "mine"
    target.write_text("mine\n")
    (path / name).unlink() if (path / name).is_file() else shutil.rmtree(path / name, ignore_errors=True)
    (path / name).symlink_to(target)
    with pytest.raises(RunFolderError) as error:
        resume_federation(path, [LONGER], plain=True)
    assert keys_of(error.value) == [str(path / name)]
    assert target.read_text() == "mine\n"


@pytest.mark.parametrize("url", ["memory://", "memory:///"])
def test_checkpoints_may_be_at_the_root_of_a_file_system(words, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    name = f"rooted-{len(url)}"
    config = load([], [*words, f"checkpoint.dir={url}", "run.rounds=1", f"run.name={name}"], methods=config_classes())
    folder = RunFolder.open(run_federation(config, plain=True).folder)
    assert checkpoint_store(config, folder).location == f"memory:///{name}-{folder.id}"
    assert [manifest.round for manifest in checkpoint_store(config, folder).manifests()] == [1, 1]
    assert not list(tmp_path.glob("memory*"))


def test_a_resume_under_other_versions_names_them(three, monkeypatch, capsys, golden):
    path, before = three("other-versions"), versions.installed()
    monkeypatch.setattr(versions, "installed", lambda: before | {"torch": "9.9.9", "ray": "8.8.8"})

    resume_federation(path, [LONGER], plain=True)

    (line,) = (line for line in capsys.readouterr().out.splitlines() if "9.9.9" in line)
    golden(line, {str(path): "RUN", before["torch"]: "TORCH", before["ray"]: "RAY"})
    assert [attempt["versions"]["torch"] for attempt in RunFolder.open(path).attempts] == [before["torch"], "9.9.9"]
    # The next checkpoints have the new versions.
    resume_federation(path, ["run.rounds=6"], plain=True)
    assert "9.9.9" not in capsys.readouterr().out


def test_a_damaged_confusion_file_is_named_and_kept(three, longer, capsys, golden):
    path = three("torn-archive")
    file = path / "confusion.npz"
    torn = file.read_bytes()[:-30]
    file.write_bytes(torn)

    resume_federation(path, [LONGER], plain=True)

    (line,) = (line for line in capsys.readouterr().out.splitlines() if "damaged" in line)
    golden(line, {str(path): "RUN"})
    assert (path / "confusion.damaged-1.npz").read_bytes() == torn
    assert [evaluated.round for evaluated in evaluations(path)] == [4, 5, None]
    assert results_of(path) == longer
    assert RunFolder.open(path).incidents == {"disk_errors": 1}


def test_a_resume_that_finds_no_cluster_changes_nothing(three, longer, monkeypatch, capsys, keys_of):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = three("no-cluster")
    before = contents(path)

    assert main(["resume", str(path), LONGER, "placement.pool=ray", "cluster.address=127.0.0.1:1", "--plain"]) == 2

    printed = capsys.readouterr()
    assert keys_of(printed.err) == ["cluster.address=127.0.0.1:1"]
    assert "resume with" not in printed.out
    assert contents(path) == before
    # The bad address is forgotten.
    assert main(["resume", str(path), LONGER, "--plain"]) == 0
    assert results_of(path) == longer
    assert [attempt.get("resumed_round") for attempt in RunFolder.open(path).attempts] == [None, 3]


def test_a_refused_change_ends_the_command_with_code_2(three, capsys, keys_of):
    path = three("forbidden")
    before = contents(path)
    assert main(["resume", str(path), "run.seed=9", LONGER]) == 2
    assert keys_of(capsys.readouterr().err) == ["run.seed"]
    assert contents(path) == before
