"""Trials of a sweep that need a job."""

import pytest

from fedvtc.commands.submit import Job
from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.as_jobs import _belongs_to, _num_active, _suffices, _with_wait


@pytest.fixture
def sweep(write):
    return load_sweep(write("mine.yaml", "set: {run.rounds: 10}\ngrid: {run.seed: [0, 1]}"))


def job(trial, status, rounds=10, **more):
    keys = {"run": trial.name, "output_dir": trial.config.run.output_dir} | more
    return Job("0a1b2c3d-1", run_id="0a1b2c3d", attempt=1, status=status, rounds=rounds, **keys)


@pytest.mark.parametrize(
    ("status", "rounds", "suffices_here", "suffices_elsewhere"),
    [
        ("PENDING", 10, True, True),
        ("RUNNING", 10, True, True),
        ("SUCCEEDED", 10, False, True),
        ("SUCCEEDED", 5, False, False),
        ("SUCCEEDED", None, False, False),
        ("FAILED", 10, False, False),
        ("STOPPED", 10, False, False),
    ],
)
def test_an_ended_job_counts_only_if_the_run_folder_is_elsewhere(
    sweep, status, rounds, suffices_here, suffices_elsewhere
):
    trial = sweep.trials[0]
    made = job(trial, status, rounds)

    assert _suffices(made, trial, is_here=True) == suffices_here
    assert _suffices(made, trial, is_here=False) == suffices_elsewhere


def test_active_jobs_of_the_sweep_are_counted(sweep):
    first, second = sweep.trials
    other = job(first, "RUNNING", output_dir="/elsewhere")
    jobs = [job(first, "FAILED"), job(first, "PENDING"), job(second, "RUNNING"), other]

    assert not _belongs_to(other, first)
    assert _num_active(sweep, jobs) == 2


def test_a_trial_waits_for_days_unless_it_sets_a_time_or_has_no_actors(write, sweep):
    assert _with_wait(sweep.trials[0].config).placement.wait_timeout_s == 604_800
    for given in ("placement.wait_timeout_s=60", "placement.pool=inline"):
        config = load_sweep(sweep.file, [given]).trials[0].config
        assert _with_wait(config) == config
