"""Follows the log of a job until it ends, through connections that are lost."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, cast

from fedvtc.commands.submit.cluster_client import cluster_url, connect, told
from fedvtc.commands.submit.jobs import Job, job_of
from fedvtc.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SILENCE_S = 60.0
"""Seconds without a word after which the log is asked for anew: a connection may be lost without anyone being told."""
PATIENCE_S = 300.0
"""Seconds that a cluster may be out of reach."""
PAUSE_S = 2.0


def follow(job_id: str, address: str | None, write: Callable[[str], object], note: Callable[[str], object]) -> Job:
    """Passes the log of a job on as it grows.

    Args:
        job_id: of a job that `submit` submitted.
        address: the URL of the cluster's dashboard; None takes the environment's, or this machine's.
        write: takes the text of the log.
        note: takes a line for the user.

    Returns:
        The job as it ended.

    Raises:
        ClusterError: the cluster was out of reach for `PATIENCE_S`, or does not know the job.
    """
    url = cluster_url(address)
    return asyncio.run(_Follower(connect(url), url, job_id, write).follow(note))


class Patience:
    """With a cluster that is out of reach for a while.

    Args:
        url: of its dashboard.
        note: takes a line for the user.
    """

    def __init__(self, url: str, note: Callable[[str], object]) -> None:
        self._url, self._note = url, note
        self._lost_at_s: float | None = None

    def is_left(self) -> bool:
        """Whether to try again, now that it did not answer."""
        now_s = time.monotonic()
        if self._lost_at_s is None:
            self._lost_at_s = now_s
            self._note(f"{self._url} does not answer; trying again for {PATIENCE_S:g} s. Its jobs go on meanwhile.")
        return now_s - self._lost_at_s <= PATIENCE_S

    def renew(self) -> None:
        """After an answer."""
        self._lost_at_s = None


class _Follower:
    def __init__(self, client: "JobSubmissionClient", url: str, job_id: str, write: Callable[[str], object]) -> None:
        self._client, self._url, self._job_id, self._write = client, url, job_id, write
        self._num_written = 0

    async def follow(self, note: Callable[[str], object]) -> Job:
        patience = Patience(self._url, note)
        while True:
            await self._tail()
            try:
                job = job_of(self._client, self._url, self._job_id)
            except ClusterError:
                if not patience.is_left():
                    raise
            else:
                patience.renew()
                if job.is_over:
                    self._write_rest()
                    return job
            await asyncio.sleep(PAUSE_S)

    async def _tail(self) -> None:
        """Until the log ends, the connection does, or nothing more comes."""
        import aiohttp

        num_again = self._num_written  # A new connection begins at the start of the log.
        # Token, timeout and loss alike: whether it is worth another try is for the job's status to say.
        with suppress(OSError, RuntimeError, TimeoutError, aiohttp.ClientError):
            tail = cast("AsyncGenerator[str]", self._client.tail_job_logs(self._job_id))
            async with aclosing(tail) as chunks:
                while text := await asyncio.wait_for(anext(chunks, ""), SILENCE_S):
                    self._pass_on(text[num_again:])
                    num_again = max(0, num_again - len(text))

    def _write_rest(self) -> None:
        with told(self._url):
            log = self._client.get_job_logs(self._job_id)
        self._pass_on(log[self._num_written :])

    def _pass_on(self, text: str) -> None:
        if text:
            self._write(text)
            self._num_written += len(text)
