"""Ray actor around a `ClientHost`.

This module imports neither Lightning nor a module that does: a worker imports this module before the constructor of
the actor removes the variables of launchers, which Lightning reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ray

from fedvtc.errors import FedvtcError
from fedvtc.runtime.actors.stream import Failed
from fedvtc.runtime.heavy_imports import fast_imports

if TYPE_CHECKING:
    from pathlib import Path

    from fedvtc.config.schema import Config
    from fedvtc.learning.data import Dataset
    from fedvtc.learning.population import ClientSpec
    from fedvtc.runtime.host import ClientHost
    from fedvtc.runtime.lineage import History
    from fedvtc.storage.checkpoints import CheckpointStore, Shard


class ClientActor:
    """Hosts clients in a process of Ray.

    Args:
        config: the run's config.
        dataset: the images of all clients; Ray's object store shares the read-only arrays among the actors of a node.
        specs: the clients to host.
        num_gpus: GPUs that the actor reserves; below 1 a share of one GPU.
        idle_folder: folder for the states of idle clients, as in `ClientHost`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        specs: Sequence[ClientSpec],
        num_gpus: float,
        idle_folder: Path | None = None,
    ) -> None:
        drop_launcher_variables()

        # Imported now, because the seconds of this import must not count as a client's step, and because the limit on
        # threads holds only for libraries that are loaded.
        with fast_imports():
            import fedvtc.learning.client.client
            import fedvtc.runtime.host  # noqa: F401
        from fedvtc.runtime.device import keep_freed_memory, limit_threads

        keep_freed_memory()
        limit_threads(config.placement.threads_per_actor)
        self._num_gpus, self._idle_folder, self._parts = num_gpus, idle_folder, (config, dataset, specs)

    @cached_property
    def _host(self) -> ClientHost:
        """The host, built by the first task: a task can fail with an error of one line, a constructor cannot.

        Raises:
            ClusterError: the actor reserves a GPU, and Ray or PyTorch gives none.
        """
        from fedvtc.runtime.device import actor_device
        from fedvtc.runtime.host import ClientHost

        given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return ClientHost(*self._parts, actor_device(self._num_gpus, given), self._idle_folder)

    def run(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """Runs the method of `ClientHost` with this name on the clients, one after another; yields each result."""
        host = self._host
        for client in clients:
            try:
                result = host.perform(getattr(type(host), task), client, *arguments)
            except FedvtcError as error:
                result = Failed(error)
            yield result

    def rebuild(self, client: int, history: History) -> list[str]:
        """Runs `ClientHost.rebuild`; the broadcasts of the history are references to Ray's object store."""
        host = self._host
        steps = tuple(step._replace(broadcast=ray.get(step.broadcast)) for step in history.steps)
        return host.perform(type(host).rebuild, client, replace(history, steps=steps))

    def give(self, client: int) -> tuple[bool, bytes]:
        """Returns True, and the client's state for `take`; drops the client."""
        return True, self._host.give(client)

    def take(self, client: int, state: bytes) -> list[str]:
        """Builds a client from the state that another actor gave; returns no damages."""
        host = self._host
        host.perform(type(host).take, client, state)
        return []

    def forget(self, client: int) -> None:
        """Drops the client; a held state that is not yet written is set aside first."""
        self._host.forget(client)

    def adopt(self, specs: Sequence[ClientSpec]) -> None:
        """Adds clients to the host; each has to be built by `rebuild`."""
        self._host.adopt(specs)

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Shard]:
        """Writes the held states of the clients; runs in the thread that writes checkpoints."""
        return self._host.save(clients, store, draft)

    def ready(self) -> int:
        """Returns the process id, after all calls that the actor received before."""
        return os.getpid()


def drop_launcher_variables() -> None:
    """Removes the ranks that a launcher such as Slurm set in the environment that Ray was started from.

    Lightning would take the ranks for ranks of this process: write logs on rank 0 only, and requeue the whole job.
    """
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]
