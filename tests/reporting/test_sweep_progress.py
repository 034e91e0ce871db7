"""`fedvtc watch`: counts, rounds and the time that is left."""

import pytest
import yaml
from rich.console import Console

from fedvtc.commands.main import main
from fedvtc.reporting.sweep_progress import duration, progress_view, sweep_progress
from fedvtc.storage.lock import locked

ROUND = {"round": 1, "phase": "round", "test/accuracy/mean": 0.5, "time/round": 10.0}
ALL = [*(ROUND | {"round": number} for number in range(1, 5)), {"round": 4, "phase": "final"}]


@pytest.fixture
def sweep(write_run, tmp_path):
    """A sweep of five trials: finished in 40 s, running at 10 s a round, failed, two that have not started."""
    write_run(tmp_path / "one", ["run.rounds=4"], ALL)
    write_run(tmp_path / "two", ["run.rounds=4"], [ROUND], status="running")
    write_run(tmp_path / "three", ["run.rounds=4"], [ROUND], status="failed", reason="client 0 failed")
    trials = {name: {"values": {}, "run": []} for name in ("one", "two", "three", "four", "five")}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"trials": trials}, sort_keys=False))
    return tmp_path


def test_the_progress_of_a_running_sweep_worked_by_hand(sweep):
    with locked(sweep / "two"):
        progress = sweep_progress(sweep)

    assert progress.is_active
    assert [trial.status for trial in progress.trials] == ["finished", "running", "failed", "absent", "absent"]
    # Three rounds of 10 s of the running trial, and two trials of 40 s, one at a time.
    assert (progress.trials[1].left_s, progress.left_s) == (30.0, 110.0)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(progress_view(progress))
    head, _, running, failed, reason = (line.rstrip() for line in captured.get().splitlines())
    counts = "1/5 done (1 finished, 1 running, 1 failed, 2 waiting), about 1 min 50 s left"
    assert head == f"{sweep.name}: {counts}"
    assert running.split() == ["two", "running", "1/4", "0.500", "30", "s"]
    assert failed.split() == ["three", "failed", "1/4", "0.500"]
    assert reason == "three: client 0 failed"


def test_after_the_last_round_the_last_step_is_left(sweep, write_run):
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({"trials": {"last": {"values": {}, "run": []}}}))
    write_run(sweep / "last", ["run.rounds=4"], ALL[:-1], status="running")
    console = Console(width=160)
    with locked(sweep / "last"), console.capture() as captured:
        console.print(progress_view(sweep_progress(sweep)))
    head, _, running = (line.rstrip() for line in captured.get().splitlines())
    assert head == f"{sweep.name}: 0/1 done (1 running)"
    assert running.split() == ["last", "running", "4/4", "0.500", "last", "step"]


def test_without_a_process_the_trial_counts_as_killed_and_nothing_is_estimated(sweep, capsys):
    progress = sweep_progress(sweep)
    assert (progress.is_active, progress.left_s, progress.trials[1].status) == (False, None, "killed")
    assert main(["watch", str(sweep)]) == 0
    assert "1 killed, 1 failed, 2 not started)" in capsys.readouterr().out


def test_a_trial_that_is_being_damaged_does_not_hide_the_others(sweep):
    (sweep / "one" / "config.yaml").write_text("run: [")
    assert [trial.status for trial in sweep_progress(sweep).trials][:2] == ["damaged", "killed"]


def test_a_finished_trial_without_its_last_record_is_shown_as_in_the_table(sweep, write_run, capsys):
    write_run(sweep / "four", ["run.rounds=4"], ALL[:-1])
    assert sweep_progress(sweep).trials[3].status == "incomplete"
    assert main(["watch", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "1/5 done" in out
    assert "four" in out


def test_another_folder_is_refused(tmp_path, capsys, golden):
    assert main(["watch", str(tmp_path)]) == 2
    golden(capsys.readouterr().err)


def test_durations_have_two_units():
    assert [duration(seconds) for seconds in (9.6, 61, 7265)] == ["10 s", "1 min 01 s", "2 h 01 min"]
