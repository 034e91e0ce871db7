"""The jobs of a cluster that run federations, with status and exit code."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedvtc.commands.submit.cluster_client import cluster_url, connect, one_line_errors
from fedvtc.errors import EXIT_CRASH, EXIT_OK, EXIT_TERMINATED

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# Keys of a job's metadata that name its run.
RUN, RUN_ID, ATTEMPT, OUTPUT_DIR = "fedvtc_run", "fedvtc_run_id", "fedvtc_attempt", "fedvtc_output_dir"
ROUNDS, FINGERPRINT = "fedvtc_rounds", "fedvtc_fingerprint"


@dataclass(frozen=True)
class Job:
    """A job that runs one attempt of a federation.

    Attributes:
        id: the submission id, made of run id and attempt, such as `3f2a91bc-1`.
        run: the name of the run.
        run_id: the id of the run.
        attempt: the number of the submission, from 1.
        output_dir: the folder that holds the run folder.
        status: the status in Ray: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
        started_s: start as Unix time; None before the start.
        ended_s: end as Unix time; None before the end.
        message: Ray's message about the job.
        driver_exit_code: the exit code of the process; None before its end, or if Ray does not know the code.
        rounds: the number of rounds of the run; None if the metadata lacks the number.
        fingerprint: the fingerprint of the config of the run; None if the metadata lacks the fingerprint.
    """

    id: str
    run: str
    run_id: str
    attempt: int
    output_dir: str
    status: str
    started_s: float | None = None
    ended_s: float | None = None
    message: str = ""
    driver_exit_code: int | None = None
    rounds: int | None = None
    fingerprint: str | None = None

    @property
    def is_over(self) -> bool:
        """True if the job has ended."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_code(self) -> int:
        """The exit code of an ended job as a shell shows it: 143 if stopped, 128 + signal if killed."""
        if self.status == "STOPPED":
            return EXIT_TERMINATED
        if self.status == "SUCCEEDED":
            return EXIT_OK
        code = self.driver_exit_code or EXIT_CRASH
        return 128 - code if code < 0 else code


def statuses(address: str | None = None) -> list[Job]:
    """Returns the federations among the jobs of a cluster, the oldest first.

    Args:
        address: URL of the cluster's dashboard; None takes the environment's, or this machine's.

    Raises:
        ClusterError: no cluster answers, or the cluster requires another token.
    """
    url = cluster_url(address)
    return jobs_of(connect(url), url)


def jobs_of(client: "JobSubmissionClient", url: str) -> list[Job]:
    """Returns the federations among the jobs of a connected cluster, the oldest first.

    Raises:
        ClusterError: the cluster no longer answers.
    """
    with one_line_errors(url):
        details = client.list_jobs()
    return sorted(_federations(details), key=lambda job: (job.started_s or 0, job.id))


def job_of(client: "JobSubmissionClient", url: str, job_id: str) -> Job:
    """Returns a job of a connected cluster with its present status.

    Raises:
        ClusterError: the cluster no longer answers, or does not know the job.
    """
    with one_line_errors(url):
        (job,) = _federations([client.get_job_info(job_id)])
    return job


def _federations(details: Iterable["JobDetails"]) -> list[Job]:
    """Returns the jobs that `submit` submitted; skips all others."""
    jobs = []
    for detail in details:
        metadata = detail.metadata or {}
        if detail.submission_id and RUN in metadata and metadata.get(ATTEMPT, "").isdecimal():
            jobs.append(
                Job(
                    id=detail.submission_id,
                    run=metadata[RUN],
                    run_id=metadata.get(RUN_ID, ""),
                    attempt=int(metadata[ATTEMPT]),
                    output_dir=metadata.get(OUTPUT_DIR, ""),
                    status=detail.status.value,
                    started_s=detail.start_time / 1000 if detail.start_time else None,
                    ended_s=detail.end_time / 1000 if detail.end_time else None,
                    message=detail.message or "",
                    driver_exit_code=detail.driver_exit_code,
                    rounds=int(metadata[ROUNDS]) if metadata.get(ROUNDS, "").isdecimal() else None,
                    fingerprint=metadata.get(FINGERPRINT),
                )
            )
    return jobs
