"""Follows the log of a job until the job ends, and reconnects when the connection is lost."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, cast

from fedvtc.commands.submit.cluster_client import cluster_url, connect, one_line_errors
from fedvtc.commands.submit.jobs import Job, job_of
from fedvtc.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SILENCE_S = 60.0
"""Seconds without new text after which the log is requested again, because a lost connection may raise no error."""
RETRY_S = 300.0
"""Seconds for which requests to a cluster that does not answer are retried."""
PAUSE_S = 2.0
"""Seconds between two connections."""


def follow(job_id: str, address: str | None, write: Callable[[str], object], notify: Callable[[str], object]) -> Job:
    """Passes new text of a job's log to `write` until the job ends.

    Args:
        job_id: the id of a job that `submit` submitted.
        address: URL of the cluster's dashboard; None takes the environment's, or this machine's.
        write: prints text of the log.
        notify: prints a line for the user.

    Returns:
        The job after its end.

    Raises:
        ClusterError: the cluster did not answer for `RETRY_S`, or does not know the job.
    """
    url = cluster_url(address)
    return asyncio.run(_Follower(connect(url), url, job_id, write).follow(notify))


class RetryWindow:
    """The time for which requests to a cluster that does not answer are retried.

    Args:
        url: URL of the cluster's dashboard.
        notify: prints a line for the user.
    """

    def __init__(self, url: str, notify: Callable[[str], object]) -> None:
        self._url, self._notify = url, notify
        self._opened_at_s: float | None = None

    def is_open(self) -> bool:
        """Opens the window at the first failed request; returns True until `RETRY_S` have passed."""
        now_s = time.monotonic()
        if self._opened_at_s is None:
            self._opened_at_s = now_s
            self._notify(f"{self._url} does not answer; retrying for {RETRY_S:g} s. Jobs of the cluster keep running.")
        return now_s - self._opened_at_s <= RETRY_S

    def close(self) -> None:
        """Closes the window after an answer; the next failed request opens a new one."""
        self._opened_at_s = None


class _Follower:
    def __init__(self, client: "JobSubmissionClient", url: str, job_id: str, write: Callable[[str], object]) -> None:
        self._client, self._url, self._job_id, self._write = client, url, job_id, write
        self._num_written = 0

    async def follow(self, notify: Callable[[str], object]) -> Job:
        retries = RetryWindow(self._url, notify)
        while True:
            await self._tail()
            try:
                job = job_of(self._client, self._url, self._job_id)
            except ClusterError:
                if not retries.is_open():
                    raise
            else:
                retries.close()
                if job.is_over:
                    try:
                        self._write_rest()
                    except ClusterError as error:
                        # The cluster may end with its last job; the exit code of the job is known all the same.
                        notify(f"the end of the log is missing: {error}")
                    return job
            await asyncio.sleep(PAUSE_S)

    async def _tail(self) -> None:
        """Writes the log until the log or the connection ends, or no text has come for `SILENCE_S`."""
        num_skipped = self._num_written  # A new connection sends the log from its start.
        tail = cast("AsyncGenerator[str]", self._client.tail_job_logs(self._job_id))
        async with aclosing(tail) as chunks:
            # Errors of `_write` are raised: a new connection does not repair the output.
            while text := await _next_text(chunks):
                self._write_text(text[num_skipped:])
                num_skipped = max(0, num_skipped - len(text))

    def _write_rest(self) -> None:
        with one_line_errors(self._url):
            log = self._client.get_job_logs(self._job_id)
        self._write_text(log[self._num_written :])

    def _write_text(self, text: str) -> None:
        if text:
            self._write(text)
            self._num_written += len(text)


async def _next_text(chunks: "AsyncGenerator[str]") -> str:
    """Returns the next text of a log; empty if the log or the connection ends, or sends nothing for `SILENCE_S`."""
    import aiohttp

    # Any error ends the connection only; the request for the job's status decides about retries.
    with suppress(OSError, RuntimeError, TimeoutError, aiohttp.ClientError):
        return await asyncio.wait_for(anext(chunks, ""), SILENCE_S)
    return ""
