"""Where data sets lie, and how torchvision fetches one that is absent: one process at a time, and not for ever."""

import contextlib
import http.client
import os
import socket
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import lock_descriptor

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError

NETWORK_TIMEOUT_S = 15.0
"""Seconds after which a silent server counts as out of reach; torchvision itself would wait for ever."""

Result = TypeVar("Result")


def data_root(config: DataConfig) -> Path:
    """The folder that holds data sets: `data.root`, else the environment's FEDVTC_DATA, else ./data."""
    return Path(os.path.expanduser(config.root or os.environ.get("FEDVTC_DATA") or "data"))


def by_torchvision(config: DataConfig, looked: Sequence[Path], wanted: str, action: Callable[[], Result]) -> Result:
    """Runs what reads or downloads by torchvision, where it may download while no other process does.

    Args:
        config: which data set.
        looked: the folders that were looked in.
        wanted: what would do in one of them.
        action: finds what another process has fetched meanwhile, or fetches it.

    Raises:
        DataError: it fails, in whichever way.
    """
    try:
        # torchvision prints to stdout, which belongs to the program's own output.
        with _alone(config), _network_timeout(), contextlib.redirect_stdout(sys.stderr):
            return action()
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        tried = "download failed" if config.download else "data.download is false"
        raise absent(config, looked, wanted, f"{tried}: {textwrap.shorten(str(error), 160)}") from error


def await_others(config: DataConfig) -> None:
    """Returns once no other process fetches this data set, so that no file is found that is half there."""
    with contextlib.suppress(OSError), _lock_file(config).open("rb") as lock:
        lock_descriptor(lock.fileno())


def absent(config: DataConfig, looked: Sequence[Path], wanted: str, reason: str) -> DataError:
    """The error for a data set that is not there: where it was looked for, why it was not fetched, what would do."""
    return DataError(
        f"data.name={config.name}: not found in {', '.join(str(path.absolute()) for path in looked)} ({reason})."
        f" Put {wanted} into one of these, or set data.root or FEDVTC_DATA to the folder that holds them."
    )


@contextlib.contextmanager
def _alone(config: DataConfig) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # A root that is read-only or has no locks may hold the data all the same.
        with contextlib.suppress(OSError):
            if config.download:
                data_root(config).mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(_lock_file(config).open("ab"))
                lock_descriptor(lock.fileno())
        yield


def _lock_file(config: DataConfig) -> Path:
    # It stays: one that was removed could be held by one process and made anew by another.
    return data_root(config) / f".{config.name}.lock"


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
