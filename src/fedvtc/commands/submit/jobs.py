"""Jobs of a cluster that run federations: which there are, and how each ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedvtc.commands.submit.cluster_client import cluster_url, connect, told
from fedvtc.errors import EXIT_CRASH, EXIT_OK, EXIT_TERMINATED

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

RUN, RUN_ID, ATTEMPT, OUTPUT_DIR = "fedvtc_run", "fedvtc_run_id", "fedvtc_attempt", "fedvtc_output_dir"
ROUNDS = "fedvtc_rounds"
"""Metadata by which a job says which run it is of."""


@dataclass(frozen=True)
class Job:
    """One job of a cluster.

    Attributes:
        id: its submission id: run id and attempt.
        run: name of the run.
        run_id: id of the run.
        attempt: number of the submission, from 1.
        output_dir: the folder that holds the run folder.
        status: as Ray has it: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
        started_s: Unix time; None before it is known.
        ended_s: Unix time; None while it runs.
        message: what Ray says of it.
        driver_exit_code: of the process; None while it runs, and where Ray does not know it.
        rounds: that the run is to have; None where the job does not say.
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

    @property
    def is_over(self) -> bool:
        """Whether it will not run on."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_code(self) -> int:
        """What its process ended with, as a shell has it."""
        if self.status == "STOPPED":
            return EXIT_TERMINATED
        if self.status == "SUCCEEDED":
            return EXIT_OK
        code = self.driver_exit_code or EXIT_CRASH
        return 128 - code if code < 0 else code


def statuses(address: str | None = None) -> list[Job]:
    """All federations among the jobs of a cluster, the oldest first.

    Args:
        address: the URL of its dashboard; None takes the environment's, or this machine's.

    Raises:
        ClusterError: no cluster answers, or it wants another token.
    """
    url = cluster_url(address)
    return jobs_of(connect(url), url)


def jobs_of(client: "JobSubmissionClient", url: str) -> list[Job]:
    """The same for a client that there is already.

    Raises:
        ClusterError: the cluster does not answer any more.
    """
    with told(url):
        details = client.list_jobs()
    return sorted(_federations(details), key=lambda job: (job.started_s or 0, job.id))


def job_of(client: "JobSubmissionClient", url: str, job_id: str) -> Job:
    """One job as it is now.

    Raises:
        ClusterError: the cluster does not answer any more, or does not know it.
    """
    with told(url):
        (job,) = _federations([client.get_job_info(job_id)])
    return job


def _federations(details: Iterable["JobDetails"]) -> list[Job]:
    """Those that `submit` submitted; a cluster may have others."""
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
                )
            )
    return jobs
