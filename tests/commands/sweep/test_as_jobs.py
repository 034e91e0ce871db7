"""Trials of a sweep that need a job."""

import pytest

from fedvtc.commands.submit import Job
from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.as_jobs import _belongs_to, _num_active, _suffices, _with_wait, check_jobs
from fedvtc.config import fingerprint
from fedvtc.errors import ConfigError


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


@pytest.mark.parametrize(("status", "is_here"), [("SUCCEEDED", False), ("PENDING", False), ("RUNNING", True)])
def test_a_job_with_another_config_is_refused(write, sweep, keys_of, golden, status, is_here):
    first, second = sweep.trials
    jobs = [job(first, status, fingerprint=fingerprint(first.config)), job(second, status)]
    check_jobs(sweep, sweep.trials, jobs, is_here)

    changed = load_sweep(sweep.file, ["training.epochs=2"])
    with pytest.raises(ConfigError) as refused:
        check_jobs(changed, changed.trials, jobs, is_here)

    assert keys_of(refused.value) == [first.name, "mine.yaml"]
    golden(refused.value)
    # Another number of rounds is no other config: the run resumes.
    longer = load_sweep(sweep.file, ["run.rounds=20"])
    check_jobs(longer, longer.trials, jobs, is_here)
    ended = [job(first, "FAILED", fingerprint="other")]
    check_jobs(sweep, sweep.trials, ended, is_here)


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
