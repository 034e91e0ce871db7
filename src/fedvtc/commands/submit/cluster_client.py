"""The HTTP client of a cluster's dashboard, and what can go wrong with it as one line each."""

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
"""Where `ray start --head` puts the dashboard of this machine."""
KNOCK_TIMEOUT_S = 10.0
"""Seconds that a dashboard gets to answer."""
_TOO_LARGE = ("exceeds the maximum size", "EntityTooLarge", "status code 413")
"""What the control store of a cluster, its dashboard, and a proxy before it say of a folder that is too large."""
API_VARIABLE = "RAY_API_SERVER_ADDRESS"


def cluster_url(address: str | None) -> str:
    """The URL of a cluster's dashboard: as given, else of RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this machine's.

    Raises:
        ClusterError: it is not an HTTP URL, or carries a password or token.
    """
    source, url = "--address", address or DEFAULT_URL
    if not address:
        found = [(name, os.environ[name]) for name in (API_VARIABLE, "RAY_ADDRESS") if os.environ.get(name)]
        source, url = found[0] if found else (source, url)
    if carries_secret(url if "://" in url else f"http://{url}"):
        what, fix = "the URL carries a password or token", "Put the token into the file of RAY_AUTH_TOKEN_PATH instead."
        raise ClusterError(f"{source}: {what}. {fix}")
    if not _is_dashboard(url):
        fix = "Give --address http://HEAD:8265."
        raise ClusterError(f"{source}={url}: not the URL of a cluster's dashboard. {fix}")
    return url.rstrip("/")


def ray_job(words: str, url: str) -> str:
    """The command `ray job WORDS` for the cluster at a URL, as the user may type it.

    With Ray the environment wins over an address that is given.
    """
    others = [os.environ.get(name) for name in (API_VARIABLE, "RAY_ADDRESS")]
    if any(other and other.rstrip("/") != url for other in others):
        return f"{API_VARIABLE}={shlex.quote(url)} ray job {words}"
    return f"ray job {words} --address {shlex.quote(url)}"


def _is_dashboard(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # Of a bracket that is not closed, or a port that is no number.
        return False


def connect(url: str) -> "JobSubmissionClient":
    """A client of the dashboard at a URL.

    Raises:
        ClusterError: none answers, it wants another token, or its version of Ray is too old.
    """
    _knock(url)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.job_submission import JobSubmissionClient

    # They tell of every upload; two of them set a level of their own.
    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with told(url), _deciding(url):
        return JobSubmissionClient(url)


@contextmanager
def told(url: str) -> Iterator[None]:
    """What the client raises inside is one line.

    Raises:
        ClusterError: with it.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        what = "the cluster wants a token"
        if error.message.startswith("RAY_AUTH_TOKEN_PATH"):
            what = "the file of RAY_AUTH_TOKEN_PATH cannot be read, or is empty"
        elif error.message.startswith("Authentication failed"):
            what = "the cluster does not take this token"
        fix = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it."
        raise ClusterError(f"{url}: {what}. {fix}") from None
    # Those of the HTTP library are OSErrors, answers that cannot be read are ValueErrors.
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        text = str(error)
        if any(words in text for words in _TOO_LARGE):
            fix = "Name what the job does not need in a .gitignore or .rayignore there, or under excludes."
            raise ClusterError(f"--working-dir: too large to be sent to the cluster. {fix}") from None
        raise ClusterError(f"{url}: {_line(text)}. Try again, or see `{ray_job('list', url)}`.") from None


def _knock(url: str) -> None:
    """Fails in seconds where nothing answers; Ray's own client has no time limit."""
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=KNOCK_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # An answer all the same, such as that a token is wanted.
    except (OSError, ValueError, HTTPException) as error:
        reason = _line(str(getattr(error, "reason", "") or error) or type(error).__name__)
        fix = "Give the dashboard's URL by --address, or start a cluster with `ray start --head`."
        raise ClusterError(f"{url}: no cluster answers ({reason}). {fix}") from None


@contextmanager
def _deciding(url: str) -> Iterator[None]:
    """With Ray the environment wins over an address that is given; here the address does."""
    before = os.environ.get(API_VARIABLE)
    os.environ[API_VARIABLE] = url
    try:
        yield
    finally:
        del os.environ[API_VARIABLE]
        if before is not None:
            os.environ[API_VARIABLE] = before


def _line(text: str) -> str:
    """The last line that says something: of a trace, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"
