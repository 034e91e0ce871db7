"""Which trials of a sweep need a job."""

import pytest

from fedvtc.commands.submit import Job
from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.as_jobs import _is_of, _num_at_work, _waiting, _will_do


@pytest.fixture
def sweep(write):
    return load_sweep(write("mine.yaml", "set: {run.rounds: 10}\ngrid: {run.seed: [0, 1]}"))


def job(trial, status, rounds=10, **more):
    keys = {"run": trial.name, "output_dir": trial.config.run.output_dir} | more
    return Job("0a1b2c3d-1", run_id="0a1b2c3d", attempt=1, status=status, rounds=rounds, **keys)


@pytest.mark.parametrize(
    ("status", "rounds", "will_do_here", "will_do_elsewhere"),
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
def test_a_job_that_has_ended_counts_only_where_no_folder_says_more(
    sweep, status, rounds, will_do_here, will_do_elsewhere
):
    trial = sweep.trials[0]
    made = job(trial, status, rounds)

    assert _will_do(made, trial, is_here=True) == will_do_here
    assert _will_do(made, trial, is_here=False) == will_do_elsewhere


def test_jobs_of_the_sweep_that_have_not_ended_are_at_work(sweep):
    first, second = sweep.trials
    stranger = job(first, "RUNNING", output_dir="/elsewhere")
    jobs = [job(first, "FAILED"), job(first, "PENDING"), job(second, "RUNNING"), stranger]

    assert not _is_of(stranger, first)
    assert _num_at_work(sweep, jobs) == 2


def test_a_trial_waits_for_room_unless_it_says_how_long_or_needs_none(write, sweep):
    assert _waiting(sweep.trials[0].config).placement.wait_timeout_s == 604_800
    for given in ("placement.wait_timeout_s=60", "placement.pool=inline"):
        config = load_sweep(sweep.file, [given]).trials[0].config
        assert _waiting(config) == config
