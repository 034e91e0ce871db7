"""Runs as jobs of a Ray cluster that is elsewhere: submitted over HTTP, followed, listed."""

from fedvtc.submission.cluster_client import cluster_url
from fedvtc.submission.following import Patience, follow
from fedvtc.submission.jobs import Job, statuses
from fedvtc.submission.package import read_runtime_env
from fedvtc.submission.submitting import submit
from fedvtc.submission.telling import advice, jobs_table, watch

__all__ = [
    "Job",
    "Patience",
    "advice",
    "cluster_url",
    "follow",
    "jobs_table",
    "read_runtime_env",
    "statuses",
    "submit",
    "watch",
]
