"""Checks of this machine: CPUs, memory, disks, limits, and the environment variables that runs read."""

import os
import resource
import shutil
from collections.abc import Iterator
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedvtc.commands.doctor.finding import Finding, fault_of
from fedvtc.commands.free_memory import free_memory_bytes

MIN_MEMORY_BYTES = 2e9
MIN_DISK_BYTES = 1e9
MIN_OPEN_FILES = 4096
"""Ray warns below this limit; each actor needs some connections."""
MIN_ADDRESS_BYTES = 3.5e9
"""Address space that a run in one process maps, most of it for the libraries of PyTorch."""
RAY_ADDRESS_BYTES = 16e9
"""Address space that the processes of a local cluster map, with an object store of 6 GB."""
STORE_SHARE = 0.3
"""Share of the free memory that Ray's object store takes (DEFAULT_OBJECT_STORE_MEMORY_PROPORTION in Ray)."""
SMALL_STORE_BYTES = 10e9
"""Ray limits its object store to the size of /dev/shm, but only above this size."""
FULL_SHARE = 0.95
"""Used share of a disk above which Ray stops writing to the disk."""
MAX_SOCKET_PATH = 107
"""Longest path of a Unix socket, in bytes."""
RAY_SOCKET = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
"""Example of the longest socket path below Ray's folder."""


def cpus() -> Iterator[Finding]:
    """Names the CPUs that this process may use, which a local cluster takes, of all CPUs of the machine."""
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    if usable < count:
        yield Finding("CPUs", "ok", f"this process may use {usable} of {count} CPUs")
    else:
        yield Finding("CPUs", "ok", f"{count} CPU{'s' * (count != 1)}")


def memory() -> Iterator[Finding]:
    """Checks the free memory, and that Ray's object store fits into /dev/shm."""
    free = free_memory_bytes()
    if free is None:
        return
    scarce = free < MIN_MEMORY_BYTES
    fix = "Stop other programs, or set placement.pool=inline." if scarce else ""
    yield Finding("memory", "warning" if scarce else "ok", f"{_gb(free)} of memory free", fix)
    if not os.path.isdir("/dev/shm"):
        return
    shared = shutil.disk_usage("/dev/shm").free
    store = min(STORE_SHARE * free, max(SMALL_STORE_BYTES, FULL_SHARE * shared))
    if shared < store:
        found = f"{_gb(shared)} free; Ray's object store needs {_gb(store)} and would use a slow disk instead"
        fix = f"Free space in /dev/shm; in a container: docker run --shm-size={1.1 * store / 2**30:.1f}g"
        yield Finding("/dev/shm", "warning", found, fix)
    else:
        yield Finding("/dev/shm", "ok", f"{_gb(shared)} free in /dev/shm")


def ray() -> Iterator[Finding]:
    """Checks that the cluster of RAY_ADDRESS answers; without the variable, the folder that a local cluster needs."""
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        from fedvtc.errors import ClusterError
        from fedvtc.runtime.actors.cluster import nodes_elsewhere

        try:
            free, _ = nodes_elsewhere(address)
        except ClusterError as error:
            yield fault_of("Ray", error)
            return
        num_cpus, num_gpus = sum(node.num_cpus for node in free), sum(node.num_gpus for node in free)
        found = f"the cluster at {address} answers, with {num_cpus:g} CPU and {num_gpus:g} GPU free"
        yield Finding("Ray", "ok", found)
        return
    base = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    fix = "Set RAY_TMPDIR to a folder with a short path and free space, such as /tmp."
    place, usage = _nearest(base / "ray")
    if not _is_writable(place):
        found = f"{place} is not a writable folder; a local cluster would keep its files there"
        yield Finding("Ray", "fault", found, fix)
    elif len(os.fsencode(base / RAY_SOCKET)) > MAX_SOCKET_PATH:
        yield Finding("Ray", "fault", f"the path {base} is too long for the sockets of a local cluster", fix)
    elif usage.free < (1 - FULL_SHARE) * usage.total:
        found = f"{_gb(usage.free)} free on the disk of {place}; Ray stops writing to a disk {FULL_SHARE:.0%} full"
        yield Finding("Ray", "warning", found, fix)
    else:
        found = f"a run starts a local cluster with its files in {base / 'ray'}"
        yield Finding("Ray", "ok", found)


def outputs() -> Iterator[Finding]:
    """Checks disk space and permission for run folders."""
    place, usage = _nearest(Path("outputs"))
    if not _is_writable(place):
        yield Finding("outputs", "fault", f"{place} is not a writable folder", "Set run.output_dir to another folder.")
    elif usage.free < MIN_DISK_BYTES:
        fix = "Free disk space, or set run.output_dir to a folder on another disk."
        yield Finding("outputs", "warning", f"{_gb(usage.free)} free in {place}", fix)
    else:
        yield Finding("outputs", "ok", f"{_gb(usage.free)} free in {place}")


def open_files() -> Iterator[Finding]:
    """Checks the hard limit of open files. Ray raises the soft limit itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < MIN_OPEN_FILES:
        fix = "Raise the hard limit in /etc/security/limits.conf, or with docker run --ulimit nofile=65536."
        yield Finding("open files", "warning", f"at most {most} open files, too few for many clients", fix)
    else:
        limit = "any number of" if most == resource.RLIM_INFINITY else f"at most {most}"
        yield Finding("open files", "ok", f"{limit} open files")


def address_space() -> Iterator[Finding]:
    """Checks the limit of a process's address space, which batch systems set in place of a limit of memory."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= RAY_ADDRESS_BYTES:
        return
    found = f"at most {_gb(limit)} for a process (ulimit -v)"
    if limit < MIN_ADDRESS_BYTES:
        fix = "Raise the limit, with `ulimit -v unlimited` or in the request of the batch job."
        yield Finding("address space", "fault", f"{found}, too little for PyTorch", fix)
    else:
        fix = "Raise the limit, or set placement.pool=inline."
        yield Finding("address space", "warning", f"{found}, too little for the object store of Ray", fix)


def launcher() -> Iterator[Finding]:
    """Names the variables that Slurm or torchrun set for this process."""
    names = sorted(
        name for name in os.environ if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    )
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Finding("launcher", "ok", f"launcher variables ignored ({shown})")


def data_root() -> Iterator[Finding]:
    """Checks that the folder in FEDVTC_DATA exists."""
    root = os.environ.get("FEDVTC_DATA")
    if root and not os.path.isdir(os.path.expanduser(root)):
        fix = "Create the folder, or set FEDVTC_DATA to the folder of the data sets."
        yield Finding("FEDVTC_DATA", "warning", f"{root}: no such folder", fix)
    elif root:
        yield Finding("FEDVTC_DATA", "ok", f"FEDVTC_DATA={root}")


def wandb() -> Iterator[Finding]:
    """Looks for the API key of Weights & Biases, without showing the key."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "disabled", "dryrun"):
        yield Finding("wandb", "ok", f"WANDB_MODE={mode}")
    elif os.environ.get("WANDB_API_KEY"):
        yield Finding("wandb", "ok", "W&B key in WANDB_API_KEY")
    else:
        file = Path(os.path.expanduser(os.environ.get("NETRC") or "~/.netrc"))
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
        try:
            known = file.exists() and netrc(str(file)).authenticators(host) is not None
        except (NetrcParseError, OSError, UnicodeDecodeError):
            # Without the text of the error, which quotes a line of the file and so perhaps the key.
            fix = "Correct the file, or run wandb login --relogin."
            yield Finding("wandb", "warning", f"{file} is not a readable netrc file", fix)
            return
        yield Finding("wandb", "ok", f"W&B key in {file}" if known else "no W&B key (`wandb login` saves one)")


def _nearest(folder: Path) -> tuple[Path, Any]:
    """The folder, or its nearest parent that exists, and the usage of its disk."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return place, shutil.disk_usage(place)


def _is_writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
