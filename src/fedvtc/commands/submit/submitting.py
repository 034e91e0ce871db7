"""Submits a run to a cluster as a job."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedvtc.commands.submit.cluster_client import cluster_url, connect, ray_job, told
from fedvtc.commands.submit.jobs import ATTEMPT, OUTPUT_DIR, ROUNDS, RUN, RUN_ID, Job, jobs_of
from fedvtc.commands.submit.package import ENTRYPOINT, check_sendable, job_environment, packed
from fedvtc.config.naming import default_name
from fedvtc.config.schema import Config
from fedvtc.errors import UserError
from fedvtc.storage.run_folder import ATTEMPT_VARIABLE, RUN_ID_VARIABLE, new_id


def submit(
    config: Config,
    *,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    working_dir: Path | None = None,
    metadata_extra: Mapping[str, str] | None = None,
    jobs: Sequence[Job] | None = None,
) -> Job:
    """Submits a run; one of the same name and place that the cluster has had before goes on.

    The job runs `python -m fedvtc run` on the resolved config with `run.resume=auto`, so `run.name` is settled here.

    Args:
        config: whole and checked.
        address: the URL of the cluster's dashboard; None takes the environment's, or this machine's.
        runtime_env: as Ray has it; see `read_runtime_env`.
        working_dir: a folder that is sent along and is the job's own.
        metadata_extra: more that the job is to say of itself.
        jobs: what `statuses` gives for the cluster; None asks it.

    Raises:
        UserError: the job would lose or not find something, an earlier one still runs, or the cluster does not take it.
    """
    url = cluster_url(address)
    config = _settled(config)
    environment, asked = job_environment(runtime_env or {}, config)
    working_dir = working_dir or asked
    check_sendable(config, working_dir)
    client = connect(url)
    run_id, attempt = _next_attempt(jobs_of(client, url) if jobs is None else jobs, config, url)
    job = Job(
        id=f"{run_id}-{attempt}",
        run=str(config.run.name),
        run_id=run_id,
        attempt=attempt,
        output_dir=config.run.output_dir,
        status="PENDING",
        rounds=config.run.rounds,
    )
    metadata = {
        RUN: job.run,
        RUN_ID: run_id,
        ATTEMPT: str(attempt),
        OUTPUT_DIR: job.output_dir,
        ROUNDS: str(job.rounds),
    }
    environment["env_vars"] |= {RUN_ID_VARIABLE: run_id, ATTEMPT_VARIABLE: str(attempt)}
    with packed(config, working_dir) as folder, told(url):
        client.submit_job(
            entrypoint=ENTRYPOINT,
            submission_id=job.id,
            runtime_env={**environment, "working_dir": str(folder)},
            metadata={**(metadata_extra or {}), **metadata},
        )
    return job


def _settled(config: Config) -> Config:
    """Named, so that a later attempt finds it; and on whichever cluster it is submitted to."""
    # Not by the time alone, for others may be submitted in the same second.
    name = config.run.name or f"{default_name(config)}-{new_id()[:4]}"
    run = replace(config.run, name=name, resume="auto")
    return replace(config, run=run, cluster=replace(config.cluster, address=None))


def _next_attempt(jobs: Sequence[Job], config: Config, url: str) -> tuple[str, int]:
    """The id of the run, and the number of this attempt at it.

    Raises:
        UserError: an earlier attempt still runs.
    """
    earlier = [job for job in jobs if (job.run, job.output_dir) == (config.run.name, config.run.output_dir)]
    for job in earlier:
        if not job.is_over:
            fix = f"Wait for it, or stop it: {ray_job(f'stop {job.id}', url)}"
            raise UserError(f"run.name={job.run}: job {job.id} is at it ({job.status}). {fix}")
    if not earlier:
        return new_id(), 1
    last = max(earlier, key=lambda job: (job.started_s or 0, job.attempt))
    return last.run_id, last.attempt + 1
