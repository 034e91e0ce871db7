"""Prints jobs: the commands to handle a job, its log, and a table of all jobs."""

import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from fedvtc.commands.submit.cluster_client import cluster_url, ray_job
from fedvtc.commands.submit.following import follow
from fedvtc.commands.submit.jobs import Job
from fedvtc.errors import EXIT_INTERRUPTED
from fedvtc.reporting.lines import complain

MAX_MESSAGE = 60
"""Characters of Ray's message in the table of jobs."""


def advice(job: Job, address: str | None, words: Sequence[str], checkpoint_dir: str | None = None) -> list[str]:
    """Returns lines with the commands to follow, stop, resume and fetch a run.

    Args:
        job: the submitted job.
        address: URL of the cluster's dashboard; None takes the environment's, or this machine's.
        words: the arguments of `fedvtc submit` for the next attempt.
        checkpoint_dir: the folder or URL of the models; None if they are in the run folder.
    """
    url = cluster_url(address)
    # A pattern, because the run id differs from the id of the job if the run folder was lost.
    models = [f"  models: {checkpoint_dir.rstrip('/')}/{job.run}-*"] if checkpoint_dir else []
    return [
        f"job {job.id} on {url}: run {job.run}, attempt {job.attempt}",
        f"  follow: {ray_job(f'logs {job.id} --follow', url)}",
        f"  stop:   {ray_job(f'stop {job.id}', url)}",
        f"  resume: fedvtc submit {shlex.join(words)}",
        f"  fetch:  {_fetch_command(url, Path(job.output_dir, job.run))}",
        *models,
    ]


def _fetch_command(url: str, folder: Path) -> str:
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        # The dashboard of this machine, or the end of a tunnel, whose other end is not known here.
        return f"{folder} lies on the storage of the cluster"
    place = f"[{host}]" if ":" in host else host
    return f"rsync -a {shlex.quote(f'{place}:{folder}')} .    (or from another machine with the storage of the cluster)"


def watch(job: Job, address: str | None) -> int:
    """Prints the log of a job until the job ends, or until Ctrl-C, which does not stop the job.

    Returns:
        The exit code of the job; 130 after Ctrl-C.

    Raises:
        ClusterError: the cluster did not answer for minutes.
    """
    try:
        ended = follow(job.id, address, _print, _notify)
    except KeyboardInterrupt:
        _notify(f"stopped following; job {job.id} keeps running.")
        return EXIT_INTERRUPTED
    # The log has no reason if the process never started or was killed.
    reason = f" ({ended.message.splitlines()[0]})" if ended.message and ended.driver_exit_code is None else ""
    print(f"job {ended.id}: {ended.status}{reason}, exit code {ended.exit_code}", flush=True)
    return ended.exit_code


def jobs_table(jobs: Sequence[Job]) -> Table:
    """Returns a table with one row per job, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("run", overflow="fold")
    for name in ("run id", "attempt", "status", "started", "duration", "job"):
        table.add_column(name, justify="right" if name in ("attempt", "duration") else "left", no_wrap=True)
    table.add_column("message", overflow="fold")
    for job in jobs:
        message = next(iter(job.message.splitlines()), "")
        cells = (job.run, job.run_id, str(job.attempt), job.status, _started(job), _duration(job), job.id)
        table.add_row(*(Text(cell) for cell in (*cells, message[:MAX_MESSAGE])))
    return table


def _started(job: Job) -> str:
    return f"{datetime.fromtimestamp(job.started_s):%Y-%m-%d %H:%M:%S}" if job.started_s else "-"


def _duration(job: Job) -> str:
    if job.started_s is None:
        return "-"
    seconds = max(0, round((job.ended_s or time.time()) - job.started_s))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _notify(text: str) -> None:
    complain(f"fedvtc: {text}")
