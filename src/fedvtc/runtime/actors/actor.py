"""An actor: clients in a process of its own. What it does for them is in `host.py`.

Nothing that imports Lightning is imported at the top, because a worker imports this file before the actor's
constructor has cleaned the environment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from fedvtc.config.schema import Config
    from fedvtc.learning.data import Dataset
    from fedvtc.learning.population import ClientSpec
    from fedvtc.runtime.host import ClientHost
    from fedvtc.runtime.lineage import History
    from fedvtc.storage.checkpoints import CheckpointStore, Shard


class ClientActor:
    """Hosts clients in a process of its own.

    Args:
        config: of the federation.
        dataset: arrived through the object store, so its arrays are shared by all actors of a node and read-only.
        specs: the clients to host.
        num_gpus: that the actor has reserved.
    """

    def __init__(self, config: Config, dataset: Dataset, specs: Sequence[ClientSpec], num_gpus: float) -> None:
        drop_launcher_variables()

        # Now, for it takes seconds that no client's step is to answer for, and the limit holds for what is loaded.
        import fedvtc.runtime.host  # noqa: F401
        from fedvtc.runtime.device import limit_threads

        limit_threads(config.placement.threads_per_actor)
        self._num_gpus, self._parts = num_gpus, (config, dataset, specs)

    @cached_property
    def _host(self) -> ClientHost:
        """Made by the first task, as that can say what is wrong in one line, and a constructor cannot.

        Raises:
            ClusterError: the actor has reserved a GPU, and there is none for it.
        """
        from fedvtc.runtime.device import actor_device
        from fedvtc.runtime.host import ClientHost

        given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return ClientHost(*self._parts, actor_device(self._num_gpus, given))

    def run(self, task: str, client: int, *arguments: Any) -> Any:
        """One task of the host."""
        return self._host.perform(task, client, *arguments)

    def rebuild(self, client: int, history: History) -> list[str]:
        """See `ClientHost.rebuild`; the broadcasts of the history are references."""
        steps = tuple((task, round, ray.get(broadcast)) for task, round, broadcast in history.steps)
        damaged: list[str] = self._host.perform("rebuild", client, replace(history, steps=steps))
        return damaged

    def adopt(self, specs: Sequence[ClientSpec]) -> None:
        """See `ClientHost.adopt`."""
        self._host.adopt(specs)

    def save(self, client: int, store: CheckpointStore, draft: str) -> Shard:
        """See `ClientHost.save`; runs in the thread that writes."""
        return self._host.save(client, store, draft)

    def ready(self) -> int:
        """Returns the process once all that was asked before is done."""
        return os.getpid()


def drop_launcher_variables() -> None:
    """Forgets the ranks that a launcher such as Slurm gave to the process that started Ray.

    Lightning would read them as this actor's own, write no logs on any rank but 0, and requeue the whole job.
    """
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]
