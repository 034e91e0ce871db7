"""Checks of a run folder: real run folders, damaged on disk."""

import fcntl
import io
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from rich.console import Console

from fedvtc.commands.doctor import examine as examination
from fedvtc.commands.doctor import machine
from fedvtc.commands.doctor.finding import findings_table
from fedvtc.commands.doctor.run_folder import check_data, check_partition, examine_run
from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import Tracker

KEY = "sk-0123456789abcdef"
SMALL = """placement.pool=inline run.name=mine run.rounds=3 evaluate.every=1 population.num_clients=2 method.name=local
partition.alpha=100 partition.images_per_client=20 population.feature_size=4 checkpoint.keep=3"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    overrides = [*SMALL.split(), "population.backbones=[{name: cnn_2x8, share: 1}]"]
    overrides.append(f"run.output_dir={tmp_path_factory.mktemp('doctor')}")
    return run_federation(load([], overrides, methods=config_classes()), plain=True).folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run folder: three rounds, each with a checkpoint."""
    return Path(shutil.copytree(finished, tmp_path / "mine"))


@pytest.fixture
def stopped(run):
    """The run folder of a run that was stopped after three rounds, before its final step."""
    edit_json(run / "run.json", status="interrupted")
    shutil.rmtree(run / "checkpoints/final")
    return run


@pytest.fixture
def no_machine(monkeypatch):
    """Leaves out the checks of the machine, which take seconds."""
    monkeypatch.setattr(examination, "FACTS", {})
    monkeypatch.setattr(examination, "CHECKS", {})


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def problems(findings):
    """Name and state of each row that is not ok."""
    return [(row.what, row.state) for row in findings if row.state != "ok"]


def lines(findings):
    """The rows that are not ok as text, one per line."""
    rows = (row for row in findings if row.state != "ok")
    return "\n".join(f"{row.what} | {row.state} | {row.found} | {row.fix or '-'}" for row in rows)


def printed(findings):
    console = Console(file=io.StringIO(), width=160)
    console.print(findings_table(findings))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def row_of(findings, what):
    (row,) = [row for row in findings if row.what == what]
    return row


def files_of(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


class Photographer(Tracker):
    """Examines the folder of a run while the run writes it, and copies it as a killed run would leave it."""

    def __init__(self):
        self.live, self.killed = {}, {}

    def start(self, run):
        self.folder = run.folder
        self._take("fresh")

    def log(self, record, clients):
        self._take("evaluated" if clients else "before evaluation")

    def _take(self, name):
        if name not in self.live:
            self.live[name] = list(examine_run(self.folder))
            copy = self.folder.with_name(f"killed, {name}")
            self.killed[copy.name] = Path(shutil.copytree(self.folder, copy))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The findings of healthy runs by state: those of one real run in its states."""
    folder = tmp_path_factory.mktemp("healthy")
    words = [*SMALL.split(), "population.backbones=[{name: cnn_2x8, share: 1}]", f"run.output_dir={folder}"]
    config = load(
        [], [*words, "evaluate.every=2", "checkpoint.every=1", "checkpoint.async=false"], methods=config_classes()
    )
    photographer = Photographer()
    finished = run_federation(config, plain=True, trackers=[photographer]).folder
    findings = photographer.live | {name: list(examine_run(killed)) for name, killed in photographer.killed.items()}
    findings["finished"] = list(examine_run(finished))
    copied = Path(shutil.copytree(finished, folder / "copied"))
    findings["copied"] = list(examine_run(copied))
    findings["moved"] = list(examine_run(copied.rename(folder / "moved")))
    for name in photographer.killed:
        resume_federation(photographer.killed[name], plain=True)
        findings[f"resumed after {name}"] = list(examine_run(photographer.killed[name]))
    resume_federation(finished, ["run.rounds=4"], plain=True)
    findings["extended"] = list(examine_run(finished))
    return findings


LIVE = ["fresh", "before evaluation", "evaluated"]
KILLED = [f"killed, {name}" for name in LIVE]
WHOLE = ["finished", "copied", "moved", "extended", *(f"resumed after {name}" for name in KILLED)]


@pytest.mark.parametrize("state", [*LIVE, *KILLED, *WHOLE])
def test_a_healthy_run_has_no_fault_in_any_state(healthy, state):
    # A killed run is to be resumed, and starts over if it has no checkpoint yet.
    to_do = {"killed, evaluated": {"run.json"}}.get(state, {"run.json", "resuming"} if state in KILLED else set())
    assert dict.fromkeys(to_do, "warning") == dict(problems(healthy[state]))


def test_an_intact_run_has_no_problem_and_stays_unchanged(run, golden):
    before = files_of(run)

    rows = list(examine_run(run))

    assert problems(rows) == []
    assert files_of(run) == before
    assert [row.what for row in rows] == [
        *("run.json", "config.yaml", "metrics.jsonl", "clients.csv", "partition.npz", "checkpoints/final"),
        *(f"checkpoints/round_00000{round}" for round in (3, 2, 1)),
    ]
    assert row_of(rows, "metrics.jsonl").found.startswith("3 rounds")
    assert row_of(rows, "clients.csv").found == "8 rows"
    assert row_of(rows, "partition.npz").found == "2 clients, 40 images"
    assert "3 files" in row_of(rows, "checkpoints/round_000002").found
    run_id = json.loads((run / "run.json").read_text())["id"]
    sizes = {row.found.rpartition(", ")[2]: "SIZE" for row in rows if row.what.startswith("checkpoints/")}
    golden(printed(rows), {run_id: "ID", **sizes})


def test_a_finished_run_that_is_to_be_longer_is_checked_as_a_run_to_resume(run):
    rows = list(examine_run(run, ["run.rounds=5"]))

    assert problems(rows) == []
    assert row_of(rows, "resuming").found == "resumes after round 3 of 5"
    assert row_of(rows, "data").found.endswith("as in run.json")
    # Fewer rounds change nothing.
    assert problems(examine_run(run, ["run.rounds=1"])) == []


def test_a_key_that_a_resume_refuses_is_the_fault_and_not_the_checkpoints(stopped, golden):
    rows = list(examine_run(stopped, ["run.seed=7"]))

    assert problems(rows) == [("run.json", "warning"), ("config.yaml", "fault")]
    golden(lines(row for row in rows if row.what == "config.yaml"))


def test_a_stopped_run_resumes_after_its_newest_checkpoint(stopped):
    rows = list(examine_run(stopped))

    assert problems(rows) == [("run.json", "warning")]
    assert row_of(rows, "run.json").found.endswith("interrupted")
    assert row_of(rows, "run.json").fix == f"fedvtc resume {stopped}"
    assert "after round 3 of 3" in row_of(rows, "resuming").found
    assert row_of(rows, "disk").state == "ok"


@pytest.mark.parametrize("content", [b'{"id": "0a", "na', b"", b'{"id": "0a"}', b"\xff\xfe"])
def test_a_damaged_run_json_is_the_only_row(run, content):
    (run / "run.json").write_bytes(content)

    (row,) = examine_run(run)

    assert (row.what, row.state) == ("run.json", "fault")
    assert row.found
    assert row.fix


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_a_run_is_one_fault(tmp_path, golden, name):
    (tmp_path / "empty").mkdir()

    rows = list(examine_run(tmp_path / name))

    assert problems(rows) == [("run.json", "fault")]
    golden(lines(rows))


def test_the_data_of_a_run_that_can_be_resumed_are_compared(stopped, golden):
    assert row_of(examine_run(stopped), "data").state == "ok"
    data = json.loads((stopped / "run.json").read_text())["data"]
    edit_json(stopped / "run.json", data=data | {"hash": "0" * 64})
    (row,) = (row for row in examine_run(stopped) if row.what == "data")
    assert row.state == "fault"
    golden(lines([row]))
    # An older run has no hash.
    edit_json(stopped / "run.json", data=None)
    assert row_of(examine_run(stopped), "data").state == "ok"
    config = (stopped / "config.yaml").read_text()
    (stopped / "config.yaml").write_text(config.replace("name: digits", "name: mnist"))
    absent = list(examine_run(stopped, ["data.root=/nowhere"]))
    assert row_of(absent, "data").state == "fault"


def test_a_run_before_its_first_evaluation_has_no_rows_and_no_fault(stopped):
    (stopped / "clients.csv").write_bytes(b"")

    (row,) = (row for row in examine_run(stopped) if row.what == "clients.csv")

    assert (row.state, row.found) == ("ok", "not written yet")


def test_a_killed_run_differs_from_a_running_one(stopped):
    edit_json(stopped / "run.json", status="running")
    (stopped / ".lock").write_text("pid 7 on somewhere\n")
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "pha')

    killed = list(examine_run(stopped))
    with (stopped / ".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        running = list(examine_run(stopped))

    assert problems(killed) == [("run.json", "warning"), ("metrics.jsonl", "warning")]
    assert "killed" in row_of(killed, "run.json").found
    # A process is writing the incomplete line, and the user must not resume the run.
    assert problems(running) == []
    assert "pid 7 on somewhere" in row_of(running, "run.json").found
    assert "resuming" not in {row.what for row in running}


def test_an_unreadable_lock_is_a_fault_beside_the_other_rows(run, monkeypatch):
    intact = list(examine_run(run))
    # No user can open a socket as a file, not even root. A short path, because sockets need one.
    monkeypatch.chdir(run)
    (run / ".lock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(".lock")
        rows = list(examine_run(run))

    assert problems(rows) == [(".lock", "fault")]
    assert "No such device or address" in row_of(rows, ".lock").found
    assert rows[2:] == intact[1:]
    assert "perhaps a process" in row_of(rows, "run.json").found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize("name", [".lock", ""])
def test_a_lock_or_a_folder_without_read_permission_is_a_fault(run, no_machine, name):
    (run / name).chmod(0o000)
    code = main(["doctor", str(run)])
    faults = [row for row in examine_run(run) if not row.is_good]
    (run / name).chmod(0o700)

    assert code == 2
    assert [row.what for row in faults] == [name or "run.json"]
    assert "(Permission denied)" in faults[0].found


def test_a_file_that_cannot_be_read_is_a_fault_beside_the_other_rows(run, no_machine):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()

    rows = list(examine_run(run))

    assert problems(rows) == [("metrics.jsonl", "fault")]
    assert "IsADirectoryError" in row_of(rows, "metrics.jsonl").found
    assert main(["doctor", str(run)]) == 2


def test_every_problem_of_the_config_is_a_row(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("rounds: 3", "rounds: 0").replace("epochs: 1", "epoch: 1"))

    faults = [row for row in examine_run(run) if row.state != "ok"]

    assert problems(faults) == [("config.yaml", "fault")] * 2
    assert "run.rounds" in faults[1].found
    assert "training.epoch" in faults[0].found


def test_a_config_that_reads_the_environment_is_a_fault(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("label: null", "label: ${oc.env:HOME}"))

    rows = list(examine_run(run))

    assert problems(rows) == [("config.yaml", "fault")]
    assert "${...}" in row_of(rows, "config.yaml").found


def test_a_flipped_bit_in_the_partition_never_makes_the_check_raise(run):
    file = run / "partition.npz"
    whole = file.read_bytes()
    config = load([run / "config.yaml"], [], methods=config_classes())
    states = []
    for position in range(0, len(whole), len(whole) // 40):
        flip(file, position)
        (row,) = check_partition(run, config)
        states.append(row.state)
        file.write_bytes(whole)

    # Some bits do not matter, such as those of dates.
    assert states.count("fault") > 30


def test_a_truncated_partition_is_a_fault_and_a_missing_one_a_warning(run):
    file = run / "partition.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert problems(examine_run(run)) == [("partition.npz", "fault")]

    file.unlink()
    assert problems(examine_run(run)) == [("partition.npz", "warning")]


@pytest.mark.parametrize(
    ("change", "state", "numbers"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "warning", []),
        (lambda lines: lines[:1] + lines[2:], "fault", ["2"]),
        (lambda lines: lines[:2] + lines[1:], "fault", ["2"]),
        (lambda lines: ["{}\n", *lines], "fault", ["1"]),
        (lambda lines: [lines[0], "\0\0\0\n", *lines[2:]], "fault", ["2"]),
        (lambda lines: [*lines, '{"round": 12, "phase": "round"}\n'], "fault", ["4", "5", "6", "7", "8", "3"]),
        (lambda lines: lines[:-1], "fault", ["0", "1"]),
        (lambda lines: lines[:2] + lines[3:], "fault", ["3"]),
    ],
    ids=["torn", "missing", "doubled", "other", "zeros", "many", "final", "last"],
)
def test_problems_of_records_are_named_by_round_or_line(run, golden, change, state, numbers):
    file = run / "metrics.jsonl"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    rows = [row for row in examine_run(run) if row.state != "ok"]

    assert {row.what for row in rows} == {"metrics.jsonl"}
    assert numbers in [re.findall(r"\d+", row.found) for row in rows if row.state == state]
    golden(lines(rows))


def test_missing_records_of_a_finished_run_are_faults(run, golden):
    (run / "metrics.jsonl").unlink()
    (run / "clients.csv").unlink()

    rows = list(examine_run(run))

    assert problems(rows) == [("metrics.jsonl", "fault"), ("clients.csv", "fault")]
    golden(lines(rows))


@pytest.mark.parametrize(
    ("change", "state", "numbers"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "warning", []),
        (lambda lines: [*lines[:2], "2,round\n", *lines[2:]], "fault", ["3"]),
        (lambda lines: [*lines, lines[3]], "fault", ["0", "2"]),
        (lambda lines: lines[1:], "fault", []),
    ],
    ids=["torn", "cells", "doubled", "header"],
)
def test_problems_of_rows_are_named_by_line_or_client(run, golden, change, state, numbers):
    file = run / "clients.csv"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    rows = list(examine_run(run))

    assert problems(rows) == [("clients.csv", state)]
    assert re.findall(r"\d+", row_of(rows, "clients.csv").found) == numbers
    golden(lines(rows))


@pytest.mark.parametrize("shard", ["server.pt", "client_0000.pt", "client_0001.pt"])
def test_a_flipped_bit_in_a_checkpoint_is_a_fault(stopped, shard):
    flip(stopped / f"checkpoints/round_000003/{shard}", -1)

    rows = list(examine_run(stopped))

    damaged = row_of(rows, "checkpoints/round_000003")
    assert damaged.state == "fault"
    assert shard in damaged.found
    assert "after round 2 of 3" in row_of(rows, "resuming").found


def test_each_damage_of_a_checkpoint_is_named(stopped, golden):
    checkpoints = stopped / "checkpoints"
    shard = checkpoints / "round_000003/client_0001.pt"
    num_bytes = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:10])
    (checkpoints / "round_000002/server.pt").unlink()
    (checkpoints / "round_000001/manifest.json").write_text('{"run_id"')

    rows = [row for row in examine_run(stopped) if row.what != "run.json"]

    assert problems(rows) == [
        ("checkpoints/round_000001/manifest.json", "fault"),
        ("checkpoints/round_000003", "fault"),
        ("checkpoints/round_000002", "fault"),
        ("resuming", "fault"),
    ]
    assert f"10 of {num_bytes}" in row_of(rows, "checkpoints/round_000003").found
    assert str(checkpoints) in row_of(rows, "resuming").fix
    golden(lines(rows), {str(num_bytes): "SIZE"})


def test_a_run_without_checkpoints_starts_over_if_it_has_no_records(stopped, golden):
    shutil.rmtree(stopped / "checkpoints")

    refused = row_of(examine_run(stopped), "resuming")
    (stopped / "metrics.jsonl").unlink()
    starts_over = row_of(examine_run(stopped), "resuming")

    assert (refused.state, starts_over.state) == ("fault", "warning")
    assert "round 3" in refused.found
    golden(lines([starts_over]))


def test_a_finished_run_without_its_final_checkpoint_is_a_warning(run, golden):
    shutil.rmtree(run / "checkpoints/final")

    rows = list(examine_run(run))
    shutil.rmtree(run / "checkpoints")
    without_rounds = list(examine_run(run))

    for found in (rows, without_rounds):
        assert problems(found) == [("checkpoints/final", "warning")]
        golden(lines(found))


def test_a_checkpoint_of_another_run_or_config_is_a_fault(run):
    manifest = run / "checkpoints/round_000003/manifest.json"
    edit_json(manifest, run_id="deadbeef")
    edit_json(manifest.parents[1] / "round_000002/manifest.json", fingerprint="00")
    third = manifest.parents[1] / "round_000001/manifest.json"
    shards = [shard for shard in json.loads(third.read_text())["shards"] if shard["name"] != "server.pt"]
    edit_json(third, shards=shards)

    rows = list(examine_run(run))

    assert problems(rows) == [(f"checkpoints/round_00000{round}", "fault") for round in (3, 2, 1)]
    run_id = json.loads((run / "run.json").read_text())["id"]
    named = {3: ("deadbeef", run_id), 2: ("config.yaml",), 1: ("server.pt",)}
    for round, words in named.items():
        assert all(word in row_of(rows, f"checkpoints/round_00000{round}").found for word in words)


def test_a_changed_config_fits_no_checkpoint(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.01"))

    rows = list(examine_run(run))

    checkpoints = ["checkpoints/final", *(f"checkpoints/round_00000{round}" for round in (3, 2, 1))]
    assert problems(rows) == [(name, "fault") for name in checkpoints]
    assert all("config.yaml" in row_of(rows, name).found for name in checkpoints)


def test_a_disk_too_small_for_the_next_checkpoint_is_a_warning(stopped):
    manifest = stopped / "checkpoints/round_000003/manifest.json"
    shards = json.loads(manifest.read_text())["shards"]
    edit_json(manifest, shards=[{**shards[0], "num_bytes": 10**18}, *shards[1:]])

    row = row_of(examine_run(stopped), "disk")

    assert row.state == "warning"
    assert row.found.endswith("2000.0 PB")


def test_a_secret_in_a_file_is_named_and_never_shown(run, monkeypatch, golden):
    monkeypatch.setenv("OTHER_API_KEY", "not-in-any-file")
    monkeypatch.setenv("HUB_READ_TOKEN", KEY)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("label: null", f"label: {KEY}"))

    rows = list(examine_run(run))

    row = next(row for row in rows if row.what == "config.yaml")
    assert row.state == "fault"
    assert "$HUB_READ_TOKEN" in row.found
    assert KEY not in str(rows)
    golden(lines([row]))


def test_the_command_exits_with_2_on_a_fault(run, no_machine, monkeypatch, capsys):
    monkeypatch.setattr(examination, "CHECKS", {"outputs": machine.outputs})
    intact = main(["doctor", str(run)]), capsys.readouterr().out
    flip(run / "checkpoints/round_000003/client_0000.pt", 0)
    damaged = main(["doctor", str(run)]), capsys.readouterr().out

    assert (intact[0], damaged[0]) == (0, 2)
    assert [line.split()[0] for line in intact[1].splitlines()[:3]] == ["check", "outputs", "run.json"]
    assert "client_0000.pt" in damaged[1]
    assert damaged[1].splitlines()[-1].startswith("1 fault")


def test_code_of_another_users_folder_is_not_imported():
    config = load([], ["data.name=own_images:load"], methods=config_classes())
    (row,) = check_data(None, config, "Give --trust.")
    assert (row.what, row.state, row.fix) == ("data", "warning", "Give --trust.")
