"""Attaches to a Ray cluster, or starts one on this machine for the duration of a run."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from fedvtc.config.operation import ClusterConfig
from fedvtc.config.secrets import shown
from fedvtc.errors import WARNING_SIGNALS, ClusterError, Interrupted, first_line
from fedvtc.runtime.actors.token import environment, variables_for, variables_here
from fedvtc.runtime.placement import Resources

CONNECT_TIMEOUT_S = 5.0
"""Seconds to wait until the head of a cluster accepts a connection."""
QUERY_TIMEOUT_S = 30.0
"""Seconds to wait for the resources of a cluster; the process that asks spends most of the time importing Ray."""

_QUERY = """
import json, logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
from ray._private.state import available_resources_per_node
total = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print(json.dumps([list(available_resources_per_node().values()), total]))
"""


def address_of(config: ClusterConfig) -> tuple[str, str]:
    """Returns the address to attach to, and the key or variable that sets it; empty to start a cluster here."""
    source = "cluster.address" if config.address else "RAY_ADDRESS"
    address = config.address or os.environ.get("RAY_ADDRESS", "")
    return ("" if address == "local" else address), source


def check_address(address: str, source: str) -> None:
    """Refuses addresses of Ray Client and of dashboards.

    Args:
        address: the address.
        source: the config key or variable that sets the address.

    Raises:
        ClusterError: the address is one of Ray Client or of a dashboard.
    """
    scheme, separator, _ = address.lower().partition("://")
    fix = "Set HOST:6379 on a node of the cluster, or submit a job with fedvtc submit"
    if not separator or scheme not in ("ray", "http", "https"):
        return
    what = "an address of Ray Client, which does not report the free resources of nodes"
    if scheme != "ray":
        what = "the URL of a dashboard, which accepts jobs only"
        fix += ", which also reads the URL from RAY_API_SERVER_ADDRESS"
    raise ClusterError(f"{shown(source, address)}: {what}. {fix}.")


def is_connected() -> bool:
    """Returns True if this process is connected to a Ray cluster, such as a trial of Ray Tune."""
    # A process that has not imported Ray is spared the import.
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@contextmanager
def connected(config: ClusterConfig, namespace: str) -> Iterator[None]:
    """Connects this process to a Ray cluster until the block ends; a cluster that was started here ends then.

    A process that is connected already, such as a trial of Ray Tune, keeps its connection.

    Args:
        config: the config section; with an `address` (or RAY_ADDRESS) the process attaches, else a cluster starts here.
        namespace: Ray namespace that keeps the actor names of this run apart from those of other runs.

    Raises:
        ClusterError: no cluster answers at the address, the address is not that of a node, no cluster starts here, or
            the process is connected by Ray Client.
        Interrupted: SIGTERM arrived while Ray started.
    """
    import ray

    if is_connected():
        _refuse_ray_client()
        yield
        return
    address, source = address_of(config)
    check_address(address, source)
    with environment(_variables_for(address, source) if address else variables_here()):
        try:
            _start(address, source, config, namespace)
            yield
        finally:
            # Also after Ctrl-C during the start: a half-started Ray would crash the interpreter at exit.
            with _own_handler_of(signal.SIGTERM):
                ray.shutdown()


def _refuse_ray_client() -> None:
    """Raises a ClusterError if this process is connected by Ray Client, as after `ray.init("ray://...")`."""
    from ray.util.client import ray as client

    if client.is_connected():  # type: ignore[no-untyped-call]
        what = "this process is connected by Ray Client, which does not report the free resources of nodes"
        fix = "Call ray.shutdown() and set cluster.address=HOST:6379 on a node of the cluster, or submit a job"
        raise ClusterError(f"cluster.address: {what}. {fix} with fedvtc submit.")


def _start(address: str, source: str, config: ClusterConfig, namespace: str) -> None:
    """Attaches this process to a cluster, or starts one here; raises as `connected` does."""
    import ray

    options: dict[str, Any] = {"address": address}
    if not address:
        options = {"address": "local", "num_cpus": config.num_cpus or count_cpus(), "num_gpus": config.num_gpus}
        options["include_dashboard"] = False
    try:
        without = nullcontext() if address else _without_autoscaler()
        with _own_handler_of(signal.SIGTERM), _spared_from(WARNING_SIGNALS), without, warnings.catch_warnings():
            # Ray 2.60 leaves log files open when starting processes.
            warnings.simplefilter("ignore", ResourceWarning)
            ray.init(**options, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        if address:
            raise _unanswered(address, source, first_line(error)) from error
        reason = first_line(error).rstrip(".")
        raise ClusterError(f"cluster: Ray does not start here ({reason}). Run `fedvtc doctor`.") from error
    except SystemExit as error:
        # While Ray starts, Ray handles SIGTERM itself and raises SystemExit.
        if error.code == signal.SIGTERM:
            raise Interrupted(signal.SIGTERM) from None
        raise


@contextmanager
def _without_autoscaler() -> Iterator[None]:
    """Starts a cluster without the process of Ray's autoscaler.

    The same as `ray start --no-monitor`; `ray.init` has no such option. No node joins a cluster that this process
    starts. The autoscaler takes a CPU second at the start, and Ray waits a second for its end.
    """
    from ray._private.node import Node

    # Private: a Ray that names the function otherwise starts its autoscaler.
    start: Any = getattr(Node, "start_monitor", None)
    Node.start_monitor = lambda node: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_monitor = start  # type: ignore[method-assign]


def _variables_for(address: str, source: str) -> dict[str, str]:
    """Returns the environment variables for a cluster; raises a ClusterError if no process listens there."""
    try:
        _check_listening(address)
    except (OSError, ValueError) as error:
        raise _unanswered(address, source, first_line(error)) from error
    return variables_for(address, source)


def _unanswered(
    address: str, source: str, reason: str, other: str = "remove the address and unset RAY_ADDRESS"
) -> ClusterError:
    # The first sentence only: Ray goes on with advice on options that fedvtc lacks.
    why = reason.partition(". ")[0].rstrip(".")
    fix = f"Start a cluster with `ray start --head`, or {other}."
    return ClusterError(f"{source}={address}: no Ray cluster answers ({why}). {fix}")


@contextmanager
def _own_handler_of(signum: int) -> Iterator[None]:
    """Restores the handler of a signal at the end of the block, in the main thread.

    `ray.init` installs a handler that kills the process 3 s after a SIGTERM, and `ray.shutdown` removes the handler
    without Python's knowledge.
    """
    handler = signal.getsignal(signum)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signum, handler)


@contextmanager
def _spared_from(signums: Sequence[int]) -> Iterator[None]:
    """Starts processes that never receive the signals, which a terminal or Slurm sends to all processes of a job.

    A process inherits the blocked signals of the thread that starts the process. This process receives the signals at
    the end of the block at the latest.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def free_nodes() -> list[Resources]:
    """Returns the free resources of each node of the connected cluster."""
    # Private, because Ray's public functions return sums over all nodes.
    from ray._private.state import available_resources_per_node

    return [_resources(free) for free in available_resources_per_node().values()]  # type: ignore[no-untyped-call]


def all_nodes() -> list[Resources]:
    """Returns all resources of each node of the connected cluster."""
    import ray

    return [_resources(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def may_grow() -> bool:
    """Returns True if nodes may join the connected cluster; none joins a cluster that this process started."""
    from ray._private import worker

    node = worker._global_node
    return node is None or not node.is_head()


def _resources(named: Mapping[str, float]) -> Resources:
    return Resources(float(named.get("CPU", 0.0)), float(named.get("GPU", 0.0)), float(named.get("memory", 0.0)))


def count_cpus() -> int:
    """Returns the CPUs of a cluster that starts here: in a container or a job of Slurm, those of it alone."""
    from ray._private.utils import get_num_cpus

    # Ray knows the limits of containers, but not the CPUs that Slurm or taskset bind a process to.
    count = int(get_num_cpus())
    return min(count, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else count


def nodes_elsewhere(address: str, source: str = "RAY_ADDRESS") -> tuple[list[Resources], list[Resources]]:
    """Returns the free resources and all resources of each node of a cluster.

    A subprocess asks the cluster, because a subprocess can be killed after a timeout and `ray.init` cannot.

    Args:
        address: the address of a node of the cluster.
        source: the config key or variable that sets the address.

    Raises:
        ClusterError: the address is not that of a node, or no cluster with these versions of Ray and Python answers.
    """
    check_address(address, source)
    try:
        _check_listening(address)
        variables = variables_for(address, source)
        query = subprocess.run(
            [sys.executable, "-c", _QUERY, address],
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT_S,
            env={**os.environ, **variables, "RAY_USAGE_STATS_ENABLED": "0"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer in {QUERY_TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if query.returncode == 0:
            free, total = json.loads(query.stdout.splitlines()[-1])
            return [_resources(node) for node in free], [_resources(node) for node in total]
        reason = next(reversed(query.stderr.strip().splitlines()), f"exit code {query.returncode}")
    raise _unanswered(address, source, reason, f"unset {source}")


def _check_listening(address: str) -> None:
    """Fails at once if no process listens at HOST:PORT; Ray itself would retry for minutes and log each try."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
