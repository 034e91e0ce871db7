import json
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
    """Makes the folder of a sweep over two seeds, and its runs with the statuses that are given."""

    def make(*statuses, overrides=(), more=""):
        folder = SweepFolder(load_sweep(write("mine.yaml", f"grid: {{run.seed: [0, 1]}}\n{more}"), overrides))
        for trial, status in zip(folder.sweep.trials, statuses, strict=False):
            run = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
            run.set_status(status)
        return folder

    return make


def test_what_is_done_is_what_the_run_folders_say(opened):
    folder = opened("finished", "failed")
    first, second = folder.sweep.trials

    assert [folder.state(first), folder.state(second)] == ["finished", "failed"]
    assert folder.pending() == [second]


def test_a_trial_without_a_folder_is_still_to_be_run(opened):
    folder = opened("interrupted")

    assert [folder.state(trial) for trial in folder.sweep.trials] == ["interrupted", "absent"]
    assert folder.pending() == list(folder.sweep.trials)


def test_a_finished_run_goes_on_where_there_are_to_be_more_rounds(opened):
    opened("finished", "finished")
    longer = opened(overrides=["run.rounds=11"])

    assert longer.pending() == list(longer.sweep.trials)
    assert {longer.state(trial) for trial in longer.sweep.trials} == {"waiting"}


def test_what_was_stopped_early_stays_so_until_early_stopping_is_given_up(opened):
    folder = opened("interrupted", "interrupted", more="asha: {}")
    with folder.opened():
        folder.note_stopped("seed1", 3)

    assert folder.stopped_early() == {"seed1": 3}
    assert [trial.name for trial in folder.pending()] == ["seed0"]
    assert [trial.name for trial in opened().pending()] == ["seed0", "seed1"]


@pytest.mark.parametrize("content", ["", "[1]", '{"seed1": null}', "[" * 100_000])
def test_a_damaged_list_of_what_was_stopped_early_is_one_line(opened, content):
    folder = opened("interrupted", "interrupted", more="asha: {}")
    (folder.path / "stopped_early.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"^\S+stopped_early\.json: damaged \(\w+\)\. Remove it, and .*go on\.$"):
        folder.pending()


def test_the_folder_says_what_the_sweep_is(opened):
    folder = opened()
    with folder.opened():
        pass

    written = yaml.safe_load((folder.path / "sweep.yaml").read_text())
    assert written["name"] == "mine"
    assert written["trials"]["seed1"]["values"] == {"run.seed": 1}
    assert written["trials"]["seed1"]["run"][-1] == "tracking.wandb.group=mine"
    assert folder.log(folder.sweep.trials[0]) == folder.path / "logs/seed0.log"
    assert folder.log(folder.sweep.trials[0]).parent.is_dir()


def test_another_sweep_of_the_same_name_is_refused_and_told_apart(opened):
    opened("finished", "finished")
    other = opened(overrides=["partition.alpha=0.5"])

    with pytest.raises(ConfigError) as caught, other.opened():
        pass

    first, second, last = caught.value.problems
    assert first.startswith(f"{other.path}/seed0: partition.alpha: is 0.1 in this run, not 0.5.")
    assert second.startswith(f"{other.path}/seed1: partition.alpha")
    fix = "Set another name, or give the file and the keys that it was started with."
    assert last == f"mine.yaml: {other.path} holds a sweep of other trials. {fix}"


def test_more_trials_may_join(opened, write):
    opened("finished", "finished")
    more = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}")))

    with more.opened():
        assert [trial.name for trial in more.pending()] == ["seed2"]


def test_what_one_seed_has_done_stays_done_where_a_second_joins(write):
    one = SweepFolder(load_sweep(write("mine.yaml", "grid: {partition.alpha: [0.5], run.seed: [0]}")))
    (trial,) = one.sweep.trials
    RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("finished")
    two = SweepFolder(load_sweep(write("mine.yaml", "grid: {partition.alpha: [0.5], run.seed: [0, 1]}")))

    with two.opened():
        assert [trial.name for trial in two.sweep.trials] == ["alpha0.5-seed0", "alpha0.5-seed1"]
        assert [trial.name for trial in two.pending()] == ["alpha0.5-seed1"]


def test_only_one_process_runs_a_sweep(opened):
    folder = opened()
    with folder.opened(), pytest.raises(RunFolderError, match="another process writes it"), folder.opened():
        pass


def test_a_folder_that_cannot_be_made_is_one_line(opened):
    Path("outputs").write_text("a file")
    folder = opened()

    with pytest.raises(RunFolderError, match=r"cannot be written \(.*\)\. Set run\.output_dir"), folder.opened():
        pass


def test_it_is_here_where_its_storage_is(opened):
    folder = opened()
    assert not folder.is_here

    folder.path.parent.write_text("a file")
    assert not folder.is_here

    folder.path.parent.unlink()
    folder.path.parent.mkdir()
    assert folder.is_here
    with folder.opened():
        assert folder.is_here


def test_runs_whose_process_is_gone_are_marked(opened, monkeypatch):
    folder = opened("running", "running")
    first, second = folder.sweep.trials
    monkeypatch.setattr("fedvtc.commands.sweep.folder.SETTLE_S", 0.3)

    with locked(second.path):
        folder.settle()

    assert [folder.state(first), folder.state(second)] == ["interrupted", "running"]


def test_the_last_record_is_the_newest(opened):
    folder = opened("running")
    first, second = folder.sweep.trials
    records = [{"round": round, "phase": "round"} for round in (1, 2)]
    (first.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    assert folder.last_record(first) == records[1]
    assert folder.last_record(second) == {}
