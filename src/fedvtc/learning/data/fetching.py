"""Finds the folder of data sets. Runs downloads by torchvision, one process at a time and with a timeout."""

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
"""Seconds after which a silent server counts as out of reach; torchvision alone would wait forever."""

Result = TypeVar("Result")


def data_root(config: DataConfig) -> Path:
    """Returns the folder of data sets: `data.root`, else the environment variable FEDVTC_DATA, else ./data."""
    return Path(os.path.expanduser(config.root or os.environ.get("FEDVTC_DATA") or "data"))


def by_torchvision(config: DataConfig, looked: Sequence[Path], wanted: str, action: Callable[[], Result]) -> Result:
    """Runs a read or a download by torchvision while no other process downloads the same data set.

    Args:
        config: names the data set.
        looked: folders in which the data set was not found.
        wanted: files that one of these folders should hold, for the error.
        action: reads the files that another process has downloaded meanwhile, or downloads them.

    Raises:
        DataError: the action fails.
    """
    try:
        # torchvision prints to stdout, which belongs to the program's own output.
        with _locked_for_download(config), _network_timeout(), contextlib.redirect_stdout(sys.stderr):
            return action()
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        tried = "download failed" if config.download else "data.download is false"
        raise absent(config, looked, wanted, f"{tried}: {textwrap.shorten(str(error), 160)}") from error


def await_others(config: DataConfig) -> None:
    """Waits until no other process downloads this data set, so that incomplete files are not read."""
    with contextlib.suppress(OSError), _lock_file(config).open("rb") as lock:
        lock_descriptor(lock.fileno())


def absent(config: DataConfig, looked: Sequence[Path], wanted: str, reason: str) -> DataError:
    """Builds the error for a data set that was not found: the folders, the reason and the files to provide."""
    return DataError(
        f"data.name={config.name}: not found in {', '.join(str(path.absolute()) for path in looked)} ({reason})."
        f" Put {wanted} into one of these folders, or set data.root or FEDVTC_DATA to the folder that holds them."
    )


@contextlib.contextmanager
def _locked_for_download(config: DataConfig) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # A root that is read-only or has no locks may still hold the data.
        with contextlib.suppress(OSError):
            if config.download:
                data_root(config).mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(_lock_file(config).open("ab"))
                lock_descriptor(lock.fileno())
        yield


def _lock_file(config: DataConfig) -> Path:
    return data_root(config) / f".{config.name}.lock"


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
