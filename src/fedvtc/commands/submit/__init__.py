"""`fedvtc submit`: submits runs as jobs of a Ray cluster over HTTP, follows their logs and lists the jobs.

May hold code that talks to the dashboard of a cluster only. Ray is imported only when a connection opens.
"""

from fedvtc.commands.submit.cluster_client import cluster_url
from fedvtc.commands.submit.following import RetryWindow, follow
from fedvtc.commands.submit.jobs import Job, statuses
from fedvtc.commands.submit.package import read_runtime_env, sent_folders
from fedvtc.commands.submit.printing import advice, jobs_table, watch
from fedvtc.commands.submit.submitting import package_of, submit

__all__ = [
    "Job",
    "RetryWindow",
    "advice",
    "cluster_url",
    "follow",
    "jobs_table",
    "package_of",
    "read_runtime_env",
    "sent_folders",
    "statuses",
    "submit",
    "watch",
]
