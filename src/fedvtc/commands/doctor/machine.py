"""Checks of this machine: what it has room for, and what its environment variables ask for."""

import os
import resource
import shutil
from collections.abc import Iterator
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedvtc.commands.doctor.finding import Finding, fault_of

MIN_MEMORY_BYTES = 2e9
MIN_DISK_BYTES = 1e9
MIN_OPEN_FILES = 4096
"""Ray's own bound; each process of clients costs its head some connections."""
STORE_SHARE = 0.3
"""Of the free memory, what Ray's object store takes (Ray's DEFAULT_OBJECT_STORE_MEMORY_PROPORTION)."""
SMALL_STORE_BYTES = 10e9
"""Ray makes the store at most as large as /dev/shm, but does not make it smaller than this."""
FULL_SHARE = 0.95
"""Of a disk, above which Ray stops writing to it."""
MAX_SOCKET_PATH = 107
"""Bytes of the path of a Unix socket."""
RAY_SOCKET = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"


def cpus() -> Iterator[Finding]:
    """CPUs of the machine, and those that this process may use."""
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    if usable < count:
        yield Finding("CPUs", "warning", f"{usable} of {count} may be used", f"Set cluster.num_cpus={usable}.")
    else:
        yield Finding("CPUs", "ok", str(count))


def memory() -> Iterator[Finding]:
    """Free memory, and whether Ray's object store fits into shared memory."""
    free = _free_memory()
    if free is None:
        return
    scarce = free < MIN_MEMORY_BYTES
    fix = "End other programs, or set placement.pool=inline." if scarce else ""
    yield Finding("memory", "warning" if scarce else "ok", f"{_gb(free)} free", fix)
    if not os.path.isdir("/dev/shm"):
        return
    shared = shutil.disk_usage("/dev/shm").free
    store = min(STORE_SHARE * free, max(SMALL_STORE_BYTES, FULL_SHARE * shared))
    if shared < store:
        found = f"{_gb(shared)} free, Ray's object store takes {_gb(store)} and would go to a slow disk"
        fix = f"Free it; in a container: docker run --shm-size={1.1 * store / 2**30:.1f}g"
        yield Finding("/dev/shm", "warning", found, fix)
    else:
        yield Finding("/dev/shm", "ok", f"{_gb(shared)} free, Ray's object store takes {_gb(store)}")


def _free_memory() -> float | None:
    """Bytes that are free on this machine and in this container; None where it cannot be told."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free


def ray() -> Iterator[Finding]:
    """The cluster of RAY_ADDRESS, or the folder that a cluster started here would need."""
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
        yield Finding(
            "Ray", "ok", f"the cluster at {address} answers: {num_cpus:g} CPUs and {num_gpus:g} GPUs are free"
        )
        return
    base = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    fix = "Set RAY_TMPDIR to a short folder with room, such as /tmp."
    place, usage = _nearest(base / "ray")
    if not _takes_files(place):
        found = f"{place} is no folder that can be written to; a cluster started here would keep its files there"
        yield Finding("Ray", "fault", found, fix)
    elif len(os.fsencode(base / RAY_SOCKET)) > MAX_SOCKET_PATH:
        yield Finding("Ray", "fault", f"{base} is too long for the sockets of a cluster started here", fix)
    elif usage.free < (1 - FULL_SHARE) * usage.total:
        found = f"the disk of {place} has {_gb(usage.free)} free; Ray stops writing above {FULL_SHARE:.0%} full"
        yield Finding("Ray", "warning", found, fix)
    else:
        yield Finding("Ray", "ok", f"no RAY_ADDRESS; a run starts a cluster here, with its files in {base / 'ray'}")


def outputs() -> Iterator[Finding]:
    """Room and permission for run folders."""
    place, usage = _nearest(Path("outputs"))
    if not _takes_files(place):
        fix = "Set run.output_dir to a folder of yours."
        yield Finding("outputs", "fault", f"{place} is no folder that can be written to", fix)
    elif usage.free < MIN_DISK_BYTES:
        fix = "Free some, or set run.output_dir to another disk."
        yield Finding("outputs", "warning", f"{_gb(usage.free)} free in {place}", fix)
    else:
        yield Finding("outputs", "ok", f"{_gb(usage.free)} free in {place}")


def open_files() -> Iterator[Finding]:
    """Files that a process may open; Ray raises the soft limit to the hard one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < MIN_OPEN_FILES:
        fix = "Raise the hard limit, in /etc/security/limits.conf or by docker run --ulimit nofile=65536."
        yield Finding("open files", "warning", f"at most {most}, too few for many clients", fix)
    else:
        yield Finding("open files", "ok", "no limit" if most == resource.RLIM_INFINITY else f"up to {most}")


def launcher() -> Iterator[Finding]:
    """What Slurm or torchrun set, where one of them started this."""
    names = sorted(
        name for name in os.environ if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    )
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Finding("launcher", "ok", f"{shown}: the processes of clients do without them")


def data_root() -> Iterator[Finding]:
    """The folder of FEDVTC_DATA, where it is set."""
    root = os.environ.get("FEDVTC_DATA")
    if root and not os.path.isdir(os.path.expanduser(root)):
        yield Finding("FEDVTC_DATA", "warning", f"{root}: no such folder", "Make it, or set it to where the data are.")
    elif root:
        yield Finding("FEDVTC_DATA", "ok", root)


def wandb() -> Iterator[Finding]:
    """Whether Weights & Biases would know who logs; the key itself is never shown."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "disabled", "dryrun"):
        yield Finding("wandb", "ok", f"WANDB_MODE={mode}")
    elif os.environ.get("WANDB_API_KEY"):
        yield Finding("wandb", "ok", "key found in the environment")
    else:
        file = Path(os.path.expanduser(os.environ.get("NETRC") or "~/.netrc"))
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
        try:
            known = file.exists() and netrc(str(file)).authenticators(host) is not None
        except (NetrcParseError, OSError, UnicodeDecodeError):
            # Not its text: that quotes a line of the file.
            yield Finding(
                "wandb", "warning", f"{file} cannot be read as a netrc file", "Mend it, or wandb login --relogin"
            )
            return
        yield Finding("wandb", "ok", f"key found in {file}" if known else "no key; `wandb login` keeps one")


def _nearest(folder: Path) -> tuple[Path, Any]:
    """The folder, or the nearest one above that exists, and how full its disk is."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return place, shutil.disk_usage(place)


def _takes_files(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
