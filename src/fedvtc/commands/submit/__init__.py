"""Runs as jobs of a Ray cluster that is elsewhere: submitted over HTTP, followed, listed."""

from fedvtc.commands.submit.cluster_client import cluster_url
from fedvtc.commands.submit.following import Patience, follow
from fedvtc.commands.submit.jobs import Job, statuses
from fedvtc.commands.submit.package import read_runtime_env
from fedvtc.commands.submit.submitting import submit
from fedvtc.commands.submit.telling import advice, jobs_table, watch

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
