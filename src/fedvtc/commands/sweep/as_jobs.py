"""Trials as jobs of a Ray cluster, each a `fedvtc run` of its own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedvtc.commands import submit as submission
from fedvtc.commands.submit import Job
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.config import Config, lost_outputs
from fedvtc.errors import ClusterError, ConfigError

WAIT_DAYS = 7
"""Days that a trial gets to find room where its config gives it none: other trials have it until they end."""
LOOK_S = 5.0
"""Seconds between looks at the jobs, where only so many may be there at a time."""


def check_as_jobs(sweep: Sweep) -> None:
    """Refuses a sweep whose trials cannot be jobs.

    Raises:
        ConfigError: it has early stopping, or would lose what it writes, for a path is relative.
    """
    first = sweep.trials[0].config
    problems = lost_outputs(replace(first, run=replace(first.run, output_dir=sweep.output_dir)))
    lines = [str(problem) for problem in problems]
    if sweep.asha is not None:
        what = "jobs do not hear of each other, so none can be stopped early"
        lines.append(f"{sweep.file}: asha: {what}. Take it out, or leave --executor jobs out.")
    if lines:
        raise ConfigError(lines)


def submit_trials(
    folder: SweepFolder,
    is_here: bool,
    address: str | None,
    runtime_env: Path | None,
    working_dir: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Submits a job for each trial that is not done and has none at it; returns once the last is sent.

    With `max_concurrent` no more of the sweep's jobs are there at a time, and the next is sent when one has ended.

    Args:
        folder: of the sweep.
        is_here: whether it is opened, and its run folders say what is done; else the jobs do.
        address: the URL of the cluster's dashboard; None takes the environment's, or this machine's.
        runtime_env: a file with a runtime environment of Ray.
        working_dir: a folder that each job runs in a copy of.
        tell: gets a line for each trial.

    Raises:
        UserError: the cluster does not answer, or does not take a job.
    """
    sweep = folder.sweep
    environment = submission.read_runtime_env(runtime_env) if runtime_env else None
    jobs: Sequence[Job] = submission.statuses(address)
    unsent = []
    # Asked after the jobs, so that one that ends meanwhile is not sent again.
    for trial in folder.pending() if is_here else sweep.trials:
        job = next((job for job in jobs if _is_of(job, trial) and _will_do(job, trial, is_here)), None)
        if job is None:
            unsent.append(trial)
        else:
            tell(f"{trial.name}: job {job.id} ({job.status})")
    if any(_waiting(trial.config) != trial.config for trial in unsent):
        tell(f"a trial that finds no room waits for it, up to {WAIT_DAYS} days (placement.wait_timeout_s is 0)")
    most = sweep.max_concurrent or len(sweep.trials)
    if len(unsent) + _num_at_work(sweep, jobs) > most:
        tell(f"at most {most} at a time (max_concurrent); this command stays until the last is sent")
    patience = submission.Patience(submission.cluster_url(address), tell)
    for trial in unsent:
        while _num_at_work(sweep, jobs) >= most:
            time.sleep(LOOK_S)
            try:
                jobs = submission.statuses(address)
            except ClusterError:
                if not patience.is_left():
                    raise
            else:
                patience.renew()
        job = submission.submit(
            _waiting(trial.config),
            address=address,
            runtime_env=environment,
            working_dir=working_dir,
            metadata_extra={"fedvtc_sweep": sweep.name},
            jobs=jobs,
        )
        jobs = [*jobs, job]
        tell(f"{trial.name}: job {job.id}, attempt {job.attempt}")


def _is_of(job: Job, trial: Trial) -> bool:
    return (job.run, job.output_dir) == (trial.name, trial.config.run.output_dir)


def _will_do(job: Job, trial: Trial, is_here: bool) -> bool:
    """Whether a trial needs no other job than this one; where its run folder is here, that says whether it is done."""
    is_done = not is_here and job.status == "SUCCEEDED" and job.rounds == trial.config.run.rounds
    return is_done or not job.is_over


def _num_at_work(sweep: Sweep, jobs: Sequence[Job]) -> int:
    return sum(not job.is_over and any(_is_of(job, trial) for trial in sweep.trials) for job in jobs)


def _waiting(config: Config) -> Config:
    """The config of a trial that waits until others have made room for its actors."""
    placement = config.placement
    if placement.pool == "inline" or placement.wait_timeout_s > 0:
        return config
    return replace(config, placement=replace(placement, wait_timeout_s=WAIT_DAYS * 24 * 3600.0))
