"""Attaches to a Ray cluster, or starts one on this machine for the length of a run."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedvtc.config.operation import ClusterConfig
from fedvtc.config.secrets import shown
from fedvtc.errors import ClusterError, Interrupted, first_line
from fedvtc.runtime.placement import Resources

KNOCK_TIMEOUT_S = 5.0
"""Seconds that the head of a cluster gets to accept a connection."""
VISIT_TIMEOUT_S = 30.0
"""Seconds that a whole visit of a cluster may take, most of it for importing Ray."""

_VISIT = """
import json, logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
from ray._private.state import available_resources_per_node
total = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print(json.dumps([list(available_resources_per_node().values()), total]))
"""


def address_of(config: ClusterConfig) -> tuple[str, str]:
    """The address of a cluster to attach to, empty where one starts here, and what sets it."""
    if config.address:
        return config.address, "cluster.address"
    return os.environ.get("RAY_ADDRESS", ""), "RAY_ADDRESS"


def check_address(address: str, source: str) -> None:
    """Refuses what leads to a cluster, but not to its nodes.

    Args:
        address: as it was given.
        source: what sets it.

    Raises:
        ClusterError: it is one for Ray Client, or for jobs.
    """
    scheme, separator, _ = address.lower().partition("://")
    fix = "Set HOST:6379 on a node of the cluster, or send a job with fedvtc submit"
    if not separator or scheme not in ("ray", "http", "https"):
        return
    what = "is Ray Client, which does not say what nodes have free"
    if scheme != "ray":
        what = "is the URL of a dashboard, which takes jobs only"
        fix += ", which finds it in RAY_API_SERVER_ADDRESS too"
    raise ClusterError(f"{shown(source, address)}: {what}. {fix}.")


@contextmanager
def connected(config: ClusterConfig, namespace: str) -> Iterator[None]:
    """This process is a driver inside; outside it is disconnected, and a cluster that was started here is gone.

    A process that Ray knows already, such as that of a trial of Ray Tune, stays what it is.

    Args:
        config: `address` (or RAY_ADDRESS) attaches; without one a cluster starts here.
        namespace: keeps the names of this run's actors apart from those of other runs.

    Raises:
        ClusterError: there is no cluster at the address, it is not one of a node, or none starts here.
        Interrupted: SIGTERM came while Ray started.
    """
    # Read when Ray is imported. The variable of accelerators: actors without a GPU keep what the machine shows them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address, source = address_of(config)
    check_address(address, source)
    quiet: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            with _own_handler_of(signal.SIGTERM), warnings.catch_warnings():
                # Ray 2.60 leaves log files open when it starts processes.
                warnings.simplefilter("ignore", ResourceWarning)
                if address:
                    _knock(address)
                    ray.init(address=address, **quiet)
                else:
                    ray.init(
                        address="local",
                        num_cpus=config.num_cpus,
                        num_gpus=config.num_gpus,
                        include_dashboard=False,
                        **quiet,
                    )
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error).rstrip(".")
            if not address:
                raise ClusterError(f"cluster: Ray does not start here ({reason}). See `fedvtc doctor`.") from error
            raise ClusterError(
                f"{source}={address}: no Ray cluster answers ({reason}). "
                "Start one with `ray start --head`, or leave the address out and unset RAY_ADDRESS."
            ) from error
        except SystemExit as error:
            # Ray's own way to hear a SIGTERM, from the first moment of its start to the end of it.
            if error.code == signal.SIGTERM:
                raise Interrupted(signal.SIGTERM) from None
            raise
        yield
    finally:
        # Also where Ctrl-C came in the middle of the start: what is half there crashes the interpreter at its end.
        with _own_handler_of(signal.SIGTERM):
            ray.shutdown()


@contextmanager
def _own_handler_of(signum: int) -> Iterator[None]:
    """This process handles the signal as before once the block has ended, if this is the main thread.

    What `ray.init` installs for SIGTERM would kill the process 3 s after one, and `ray.shutdown` leaves it without a
    handler, behind Python's back.
    """
    handler = signal.getsignal(signum)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signum, handler)


def free_nodes() -> list[Resources]:
    """What each node of the connected cluster has free."""
    # In this place, because Ray's public sums do not say what lies on one node.
    from ray._private.state import available_resources_per_node

    return [_resources(free) for free in available_resources_per_node().values()]  # type: ignore[no-untyped-call]


def all_nodes() -> list[Resources]:
    """What each node of the connected cluster has, free or not."""
    import ray

    return [_resources(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def may_grow() -> bool:
    """Whether nodes may join the connected cluster; one that this process has started has no others."""
    from ray._private import worker

    node = worker._global_node
    return node is None or not node.is_head()


def _resources(named: Mapping[str, float]) -> Resources:
    return Resources(float(named.get("CPU", 0.0)), float(named.get("GPU", 0.0)), float(named.get("memory", 0.0)))


def count_cpus() -> int:
    """CPUs of a cluster started here, as Ray counts them: in a container those that it may use."""
    from ray._private.utils import get_num_cpus

    return int(get_num_cpus())


def nodes_elsewhere(address: str, source: str = "RAY_ADDRESS") -> tuple[list[Resources], list[Resources]]:
    """What each node of a cluster has free, and what in all.

    A process of its own asks: that one can be given up on, `ray.init` cannot.

    Args:
        address: of one of its nodes.
        source: what sets it.

    Raises:
        ClusterError: the address is not one of a node, or no cluster of this version of Ray and Python answers.
    """
    check_address(address, source)
    try:
        _knock(address)
        visit = subprocess.run(
            [sys.executable, "-c", _VISIT, address],
            capture_output=True,
            text=True,
            timeout=VISIT_TIMEOUT_S,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer in {VISIT_TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if visit.returncode == 0:
            free, total = json.loads(visit.stdout.splitlines()[-1])
            return [_resources(node) for node in free], [_resources(node) for node in total]
        reason = next(reversed(visit.stderr.strip().splitlines()), f"exit code {visit.returncode}")
    raise ClusterError(
        f"{source}={address}: no Ray cluster answers ({reason}). Start one with `ray start --head`, or unset it."
    )


def _knock(address: str) -> None:
    """Fails at once where nobody listens at HOST:PORT; Ray itself would try for minutes and log as it goes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
