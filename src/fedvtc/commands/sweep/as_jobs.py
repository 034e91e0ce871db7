"""Runs the trials of a sweep as jobs of a Ray cluster, each job a `fedvtc run`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedvtc.commands import submit as submission
from fedvtc.commands.submit import Job
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.config import Config, fingerprint, lost_outputs
from fedvtc.errors import ClusterError, ConfigError

WAIT_DAYS = 7
"""Days that a trial waits for resources if its config sets no time, because other trials use them first."""
POLL_S = 5.0
"""Seconds between two requests for the states of jobs, while `max_concurrent` jobs are active."""


def check_as_jobs(sweep: Sweep) -> None:
    """Refuses a sweep that cannot run as jobs.

    Raises:
        ConfigError: the sweep uses early stopping, or an output path is relative and would be lost with its job.
    """
    first = sweep.trials[0].config
    problems = lost_outputs(replace(first, run=replace(first.run, output_dir=sweep.output_dir)))
    lines = [str(problem) for problem in problems]
    if sweep.asha is not None:
        what = "early stopping does not work with --executor jobs, because jobs do not compare their metrics"
        lines.append(f"{sweep.file}: asha: {what}. Remove asha or --executor jobs.")
    if lines:
        raise ConfigError(lines)


def submit_trials(
    folder: SweepFolder,
    is_here: bool,
    address: str | None,
    runtime_env: Path | None,
    working_dir: Path | None,
    notify: Callable[[str], None],
) -> None:
    """Submits a job for each trial that is not done and has no active job; returns after the last submission.

    With `max_concurrent`, at most that many jobs of the sweep are active: the next is submitted when one has ended.

    Args:
        folder: the sweep folder.
        is_here: True if the folder is opened on this machine; then the run folders decide which trials are done,
            otherwise the jobs of the cluster decide.
        address: URL of the cluster's dashboard; None takes the environment's, or this machine's.
        runtime_env: a file with a runtime environment of Ray.
        working_dir: a folder that each job runs in a copy of.
        notify: prints a line for the user.

    Raises:
        UserError: the cluster does not answer or rejects a job, or a job of a trial has another config.
    """
    sweep = folder.sweep
    environment = submission.read_runtime_env(runtime_env) if runtime_env else None
    jobs: Sequence[Job] = submission.statuses(address)
    # Read after the jobs, so that a trial whose job ends in between is not submitted again.
    trials = folder.pending() if is_here else sweep.trials
    check_jobs(sweep, trials, jobs, is_here)
    unsent = [trial for trial in trials if not _has_job(trial, jobs, is_here, notify)]
    if any(_with_wait(trial.config) != trial.config for trial in unsent):
        notify(f"each trial waits up to {WAIT_DAYS} days for free resources (placement.wait_timeout_s is 0)")
    max_active = sweep.max_concurrent or len(sweep.trials)
    if len(unsent) + _num_active(sweep, jobs) > max_active:
        stays = "this command runs until the last job is submitted"
        notify(f"at most {max_active} active at a time (max_concurrent); {stays}")
    retries = submission.RetryWindow(submission.cluster_url(address), notify)
    if not unsent:
        return
    # All trials, also those that are done: the folder of a resumed sweep is then still known to the cluster.
    configs = {trial.name: _with_wait(trial.config) for trial in sweep.trials}
    with submission.package_of([*configs.values()], environment, working_dir) as package:
        for trial in unsent:
            while _num_active(sweep, jobs) >= max_active:
                time.sleep(POLL_S)
                try:
                    jobs = submission.statuses(address)
                except ClusterError:
                    if not retries.is_open():
                        raise
                else:
                    retries.close()
            job = submission.submit(
                configs[trial.name],
                address=address,
                runtime_env=environment,
                working_dir=working_dir,
                metadata_extra={"fedvtc_sweep": sweep.name},
                jobs=jobs,
                package=package,
            )
            jobs = [*jobs, job]
            notify(f"{trial.name}: job {job.id}, attempt {job.attempt}")


def check_jobs(sweep: Sweep, trials: Sequence[Trial], jobs: Sequence[Job], is_here: bool) -> None:
    """Refuses trials whose jobs run, or have run, another config.

    Raises:
        ConfigError: one line for each job with another config.
    """
    lines = [
        f"{trial.name}: job {job.id} ({job.status}) has another config."
        for trial in trials
        for job in jobs
        if _belongs_to(job, trial) and _suffices(job, trial, is_here)
        # A job of an earlier version of fedvtc has no fingerprint.
        if job.fingerprint not in (None, fingerprint(trial.config))
    ]
    if lines:
        fix = "Change the name of the sweep, or use the sweep file and keys that started the sweep there."
        lines.append(f"{sweep.file}: {sweep.path} belongs to jobs with other configs. {fix}")
        raise ConfigError(lines)


def _has_job(trial: Trial, jobs: Sequence[Job], is_here: bool, notify: Callable[[str], None]) -> bool:
    """True if a trial needs no new job; prints the job that the trial has."""
    for job in jobs:
        if _belongs_to(job, trial) and _suffices(job, trial, is_here):
            notify(f"{trial.name}: job {job.id} ({job.status})")
            return True
    return False


def _belongs_to(job: Job, trial: Trial) -> bool:
    return (job.run, job.output_dir) == (trial.name, trial.config.run.output_dir)


def _suffices(job: Job, trial: Trial, is_here: bool) -> bool:
    """True if a job is active, or has done the trial.

    With the run folder on this machine, a successful job proves nothing.
    """
    is_done = not is_here and job.status == "SUCCEEDED" and job.rounds == trial.config.run.rounds
    return is_done or not job.is_over


def _num_active(sweep: Sweep, jobs: Sequence[Job]) -> int:
    return sum(not job.is_over and any(_belongs_to(job, trial) for trial in sweep.trials) for job in jobs)


def _with_wait(config: Config) -> Config:
    """Returns the config with `WAIT_DAYS` for `placement.wait_timeout_s`, unless it sets a time or has no actors."""
    placement = config.placement
    if placement.pool == "inline" or placement.wait_timeout_s > 0:
        return config
    return replace(config, placement=replace(placement, wait_timeout_s=WAIT_DAYS * 24 * 3600.0))
