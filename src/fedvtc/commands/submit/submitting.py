"""Submits a run to a cluster as a job."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedvtc.commands.submit.cluster_client import cluster_url, connect, one_line_errors, ray_job
from fedvtc.commands.submit.jobs import ATTEMPT, FINGERPRINT, OUTPUT_DIR, ROUNDS, RUN, RUN_ID, Job, jobs_of
from fedvtc.commands.submit.package import check_sendable, entrypoint, job_environment, packed, unsent_files
from fedvtc.config import fingerprint
from fedvtc.config.naming import default_name
from fedvtc.config.schema import Config
from fedvtc.errors import UserError
from fedvtc.storage.run_id import ATTEMPT_VARIABLE, RUN_ID_VARIABLE, new_id


def submit(
    config: Config,
    *,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    working_dir: Path | None = None,
    metadata_extra: Mapping[str, str] | None = None,
    jobs: Sequence[Job] | None = None,
    package: Path | None = None,
) -> Job:
    """Submits a run as a job; resumes the run if the cluster has run the same `run.name` and `run.output_dir` before.

    The job runs `python -m fedvtc run` on the resolved config with `run.resume=auto`. A run without a name gets a
    generated name, so that a later attempt finds the run folder.

    Args:
        config: the complete, checked config.
        address: URL of the cluster's dashboard; None takes the environment's, or this machine's.
        runtime_env: a runtime environment of Ray, from `read_runtime_env`.
        working_dir: a folder that the job runs in a copy of.
        metadata_extra: more metadata of the job.
        jobs: the result of `statuses` for the cluster; None requests it.
        package: a folder of `package_of` with the config; None makes one.

    Raises:
        UserError: the job would lose outputs or lack inputs, the run has an active job, or the cluster rejects the job.
    """
    url = cluster_url(address)
    config = _for_job(config)
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
        fingerprint=fingerprint(config),
    )
    metadata = {
        RUN: job.run,
        RUN_ID: run_id,
        ATTEMPT: str(attempt),
        OUTPUT_DIR: job.output_dir,
        ROUNDS: str(job.rounds),
        FINGERPRINT: str(job.fingerprint),
    }
    if excludes := unsent_files(environment, working_dir):
        environment["excludes"] = excludes
    environment["env_vars"] |= {RUN_ID_VARIABLE: run_id, ATTEMPT_VARIABLE: str(attempt)}
    with nullcontext(package) if package else packed([config], working_dir) as folder, one_line_errors(url):
        client.submit_job(
            entrypoint=entrypoint(config),
            submission_id=job.id,
            runtime_env={**environment, "working_dir": str(folder)},
            metadata={**(metadata_extra or {}), **metadata},
        )
    return job


@contextmanager
def package_of(
    configs: Sequence[Config], runtime_env: Mapping[str, Any] | None = None, working_dir: Path | None = None
) -> Iterator[Path]:
    """Makes the folder that is sent with the jobs of several runs, which the cluster then gets once.

    Args:
        configs: the complete, checked configs of the runs, each with another `run.name`.
        runtime_env: a runtime environment of Ray, from `read_runtime_env`.
        working_dir: a folder that each job runs in a copy of.

    Raises:
        UserError: a job would lose outputs or lack inputs.
    """
    folder = working_dir or job_environment(runtime_env or {}, configs[0])[1]
    for config in configs:
        check_sendable(config, folder)
    with packed([_for_job(config) for config in configs], folder) as package:
        yield package


def _for_job(config: Config) -> Config:
    """Returns the config with a name, `run.resume=auto`, and the cluster of the job instead of `cluster.address`."""
    # The time alone is no unique name, because several runs may be submitted in the same second.
    name = config.run.name or f"{default_name(config)}-{new_id()[:4]}"
    run = replace(config.run, name=name, resume="auto")
    return replace(config, run=run, cluster=replace(config.cluster, address=None))


def _next_attempt(jobs: Sequence[Job], config: Config, url: str) -> tuple[str, int]:
    """Returns the id of the run and the number of its next attempt.

    Raises:
        UserError: a job of an earlier attempt is active.
    """
    earlier = [job for job in jobs if (job.run, job.output_dir) == (config.run.name, config.run.output_dir)]
    for job in earlier:
        if not job.is_over:
            fix = f"Wait until the job ends, or stop the job: {ray_job(f'stop {job.id}', url)}"
            raise UserError(f"run.name={job.run}: job {job.id} of this run is active ({job.status}). {fix}")
    if not earlier:
        return new_id(), 1
    last = max(earlier, key=lambda job: (job.started_s or 0, job.attempt))
    return last.run_id, last.attempt + 1
