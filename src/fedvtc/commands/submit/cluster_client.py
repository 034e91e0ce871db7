"""The HTTP client of a cluster's dashboard, with one-line errors."""

import json
import logging
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fedvtc.config.secrets import carries_secret
from fedvtc.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_URL = "http://127.0.0.1:8265"
"""The dashboard that `ray start --head` starts on this machine."""
CONNECT_TIMEOUT_S = 10.0
"""Seconds that a dashboard has to answer the first request."""
_TOO_LARGE = ("exceeds the maximum size", "EntityTooLarge", "status code 413")
"""Parts of the errors that Ray's control store, the dashboard, or a proxy raise for a folder that is too large."""
API_VARIABLE = "RAY_API_SERVER_ADDRESS"


def cluster_url(address: str | None) -> str:
    """Returns the URL of a cluster's dashboard.

    Args:
        address: the URL; None takes RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else this machine's dashboard.

    Raises:
        ClusterError: the address is not an HTTP URL, or contains a password or token.
    """
    source, url = "--address", address or DEFAULT_URL
    if not address:
        found = [(name, os.environ[name]) for name in (API_VARIABLE, "RAY_ADDRESS") if os.environ.get(name)]
        source, url = found[0] if found else (source, url)
    if carries_secret(url if "://" in url else f"http://{url}"):
        fix = "Put the token into a file and set RAY_AUTH_TOKEN_PATH to its path."
        raise ClusterError(f"{source}: the URL contains a password or token. {fix}")
    if not _is_dashboard(url):
        raise ClusterError(f"{source}={url}: not the URL of a cluster's dashboard. Give --address http://HEAD:8265.")
    return url.rstrip("/")


def ray_job(words: str, url: str) -> str:
    """Returns the shell command `ray job WORDS` for the cluster at a URL.

    The command starts with RAY_API_SERVER_ADDRESS if the environment names another cluster, because for `ray job` the
    environment overrides `--address`.
    """
    others = [os.environ.get(name) for name in (API_VARIABLE, "RAY_ADDRESS")]
    if any(other and other.rstrip("/") != url for other in others):
        return f"{API_VARIABLE}={shlex.quote(url)} ray job {words}"
    return f"ray job {words} --address {shlex.quote(url)}"


def _is_dashboard(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # An open bracket, or a port that is not a number.
        return False


def connect(url: str) -> "JobSubmissionClient":
    """Returns a client of the dashboard at a URL.

    Raises:
        ClusterError: no dashboard answers, it requires another token, or its Ray version is too old.
    """
    _check_answers(url)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.job_submission import JobSubmissionClient

    # These loggers print a line for every upload; two of them set their own level.
    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with one_line_errors(url), _address_variable(url):
        return JobSubmissionClient(url)


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turns an error of Ray's client into a `ClusterError` with one line.

    Raises:
        ClusterError: the client raised an error inside.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        what = "the cluster requires a token"
        if error.message.startswith("RAY_AUTH_TOKEN_PATH"):
            what = "the token file of RAY_AUTH_TOKEN_PATH is unreadable or empty"
        elif error.message.startswith("Authentication failed"):
            what = "the cluster rejects the token"
        fix = "Set RAY_AUTH_MODE=token and set RAY_AUTH_TOKEN_PATH to the file with the token."
        raise ClusterError(f"{url}: {what}. {fix}") from None
    # Errors of the HTTP library are OSErrors. An unreadable answer is a ValueError, one of another service a KeyError.
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        text = str(error)
        if any(words in text for words in _TOO_LARGE):
            fix = "List files that the job does not need in its .gitignore or .rayignore, or under excludes."
            raise ClusterError(f"--working-dir: too large to upload to the cluster. {fix}") from None
        is_from_ray = not isinstance(error, json.JSONDecodeError | KeyError)
        reason = _last_line(text) if is_from_ray else "the answer is not that of a Ray dashboard"
        raise ClusterError(f"{url}: {reason}. Try again, or run `{ray_job('list', url)}`.") from None


def _check_answers(url: str) -> None:
    """Fails within seconds if no dashboard answers, because Ray's own client has no time limit."""
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # An HTTP error, such as a missing token, is an answer too.
    except (OSError, ValueError, HTTPException) as error:
        reason = _last_line(str(getattr(error, "reason", "") or error) or type(error).__name__)
        fix = "Give the dashboard's URL with --address, or start a cluster with `ray start --head`."
        raise ClusterError(f"{url}: no cluster answers ({reason}). {fix}") from None


@contextmanager
def _address_variable(url: str) -> Iterator[None]:
    """Sets RAY_API_SERVER_ADDRESS to the URL inside, because for Ray the environment overrides a given address."""
    before = os.environ.get(API_VARIABLE)
    os.environ[API_VARIABLE] = url
    try:
        yield
    finally:
        del os.environ[API_VARIABLE]
        if before is not None:
            os.environ[API_VARIABLE] = before


def _last_line(text: str) -> str:
    """Returns the last line that is not empty; in a traceback this is the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"
