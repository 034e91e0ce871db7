"""The sweep folder: states of trials, locks, and refused folders."""

import json
import os
from pathlib import Path

import pytest
import yaml

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.config import to_dict
from fedvtc.errors import ConfigError, RunFolderError
from fedvtc.storage.lock import locked
from fedvtc.storage.run_folder import RunFolder


@pytest.fixture
def opened(write):
    """Makes the folder of a sweep over two seeds, and its runs with the given statuses."""

    def make(*statuses, overrides=(), more=""):
        folder = SweepFolder(load_sweep(write("mine.yaml", f"grid: {{run.seed: [0, 1]}}\n{more}"), overrides))
        for trial, status in zip(folder.sweep.trials, statuses, strict=False):
            run = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
            run.set_status(status)
        return folder

    return make


def test_states_are_those_of_the_run_folders(opened):
    folder = opened("finished", "failed")
    first, second = folder.sweep.trials

    assert [folder.state(first), folder.state(second)] == ["finished", "failed"]
    assert folder.pending() == [second]


def test_a_trial_without_a_run_folder_is_pending(opened):
    folder = opened("interrupted")

    assert [folder.state(trial) for trial in folder.sweep.trials] == ["interrupted", "absent"]
    assert folder.pending() == list(folder.sweep.trials)


def test_a_finished_run_is_pending_if_its_config_asks_for_more_rounds(opened):
    opened("finished", "finished")
    longer = opened(overrides=["run.rounds=11"])

    assert longer.pending() == list(longer.sweep.trials)
    assert {longer.state(trial) for trial in longer.sweep.trials} == {"waiting"}


def test_a_trial_stopped_early_is_pending_only_without_early_stopping(opened):
    folder = opened("interrupted", "interrupted", more="asha: {}")
    with folder.opened():
        folder.add_stopped_early("seed1", 3)

    assert folder.stopped_early() == {"seed1": 3}
    assert [trial.name for trial in folder.pending()] == ["seed0"]
    assert [trial.name for trial in opened().pending()] == ["seed0", "seed1"]


@pytest.mark.parametrize("content", ["", "[1]", '{"seed1": null}'])
def test_a_damaged_file_of_trials_stopped_early_is_one_line(opened, keys_of, golden, content):
    folder = opened("interrupted", "interrupted", more="asha: {}")
    (folder.path / "stopped_early.json").write_text(content)
    with pytest.raises(RunFolderError) as refused:
        folder.pending()
    assert keys_of(refused.value) == [str(folder.path / "stopped_early.json")]
    golden(refused.value)


def test_the_folder_holds_the_definition_and_logs(opened):
    folder = opened()
    with folder.opened():
        pass

    written = yaml.safe_load((folder.path / "sweep.yaml").read_text())
    assert written["name"] == "mine"
    assert written["trials"]["seed1"]["values"] == {"run.seed": 1}
    assert written["trials"]["seed1"]["run"][-1] == "tracking.wandb.group=mine"
    assert folder.log(folder.sweep.trials[0]) == folder.path / "logs/seed0.log"
    assert folder.log(folder.sweep.trials[0]).parent.is_dir()


def test_another_sweep_of_the_same_name_is_refused(opened, keys_of, golden):
    opened("finished", "finished")
    other = opened(overrides=["partition.alpha=0.5"])

    with pytest.raises(ConfigError) as caught, other.opened():
        pass

    lines = caught.value.problems
    assert keys_of(caught.value) == [f"{other.path}/seed0", f"{other.path}/seed1", "mine.yaml"]
    assert all(line.partition(": ")[2].startswith("partition.alpha: ") for line in lines[:2])
    golden(lines[-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_the_method_of_another_users_run_is_not_imported(opened, tmp_path, monkeypatch, keys_of):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    folder = opened("finished")
    path = folder.sweep.trials[0].path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "method": {"name": "theirs:Theirs"}}))
    os.chown(path, 65534, -1)

    with pytest.raises(ConfigError) as caught, folder.opened():
        pass

    assert keys_of(caught.value) == ["method.name"]
    assert not (tmp_path / "imported").exists()


def test_trials_may_be_added(opened, write):
    opened("finished", "finished")
    more = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}")))

    with more.opened():
        assert [trial.name for trial in more.pending()] == ["seed2"]


def test_an_added_seed_leaves_the_first_finished(write):
    one = SweepFolder(load_sweep(write("mine.yaml", "grid: {partition.alpha: [0.5], run.seed: [0]}")))
    (trial,) = one.sweep.trials
    RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("finished")
    two = SweepFolder(load_sweep(write("mine.yaml", "grid: {partition.alpha: [0.5], run.seed: [0, 1]}")))

    with two.opened():
        assert [trial.name for trial in two.sweep.trials] == ["alpha0.5-seed0", "alpha0.5-seed1"]
        assert [trial.name for trial in two.pending()] == ["alpha0.5-seed1"]


def test_only_one_process_runs_a_sweep(opened, keys_of):
    folder = opened()
    with folder.opened(), pytest.raises(RunFolderError) as refused, folder.opened():
        pass
    assert keys_of(refused.value) == [str(folder.path)]


def test_a_folder_that_cannot_be_created_is_one_line(opened, keys_of, golden):
    Path("outputs").write_text("a file")
    folder = opened()

    with pytest.raises(RunFolderError) as refused, folder.opened():
        pass
    assert keys_of(refused.value) == [str(folder.path)]
    golden(refused.value)


def test_a_folder_is_on_this_machine_if_its_parent_is_writable(opened):
    folder = opened()
    assert not folder.is_on_this_machine

    folder.path.parent.write_text("a file")
    assert not folder.is_on_this_machine

    folder.path.parent.unlink()
    folder.path.parent.mkdir()
    assert folder.is_on_this_machine
    with folder.opened():
        assert folder.is_on_this_machine


def test_runs_without_a_process_are_marked_interrupted(opened, monkeypatch):
    folder = opened("running", "running")
    first, second = folder.sweep.trials
    monkeypatch.setattr("fedvtc.commands.sweep.folder.EXIT_WAIT_S", 0.3)

    with locked(second.path):
        folder.mark_interrupted()

    assert [folder.state(first), folder.state(second)] == ["interrupted", "running"]


def test_a_run_whose_status_cannot_be_written_is_left_running(opened, no_room):
    folder = opened("running")

    with no_room():
        folder.mark_interrupted()

    assert folder.state(folder.sweep.trials[0]) == "running"


def test_the_last_record_is_the_newest(opened):
    folder = opened("running")
    first, second = folder.sweep.trials
    records = [{"round": round, "phase": "round"} for round in (1, 2)]
    (first.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    assert folder.last_record(first) == records[1]
    assert folder.last_record(second) == {}
