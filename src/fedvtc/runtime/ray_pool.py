"""Clients in Ray actors. A thin shell: what an actor does is in `host.py`.

Nothing that imports Lightning is imported at the top, because a worker imports this file before the actor's
constructor has cleaned the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayTaskError

from fedvtc.errors import FedvtcError

if TYPE_CHECKING:
    from fedvtc.client import ClientSpec
    from fedvtc.config.schema import Config
    from fedvtc.data import Dataset


class ClientActor:
    """Hosts clients in a process of its own.

    Args:
        config: of the federation.
        dataset: arrived through the object store, so its arrays are shared by all actors of a node and read-only.
        specs: the clients to host.
    """

    def __init__(self, config: Config, dataset: Dataset, specs: Sequence[ClientSpec]) -> None:
        drop_launcher_variables()
        import torch

        from fedvtc.runtime.host import ClientHost
        from fedvtc.runtime.pool import limit_threads

        limit_threads(config.placement.threads_per_actor)
        # The GPU is the one that Ray assigned; it is the only one this process sees, so it is number 0.
        has_gpu = bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
        self._host = ClientHost(config, dataset, specs, torch.device("cuda", 0) if has_gpu else torch.device("cpu"))

    def run(self, task: str, client: int, *arguments: Any) -> Any:
        """One task of the host."""
        return getattr(self._host, task)(client, *arguments)

    def ready(self) -> None:
        """Returns once the constructor is done."""


class RayPool:
    """Actors that live as long as the run; each client stays where it was put.

    Args:
        config: of the federation.
        dataset: put into the object store once; every node holds it once.
        hosted: the clients of each actor.
    """

    def __init__(self, config: Config, dataset: Dataset, hosted: Sequence[Sequence[ClientSpec]]) -> None:
        placement = config.placement
        actor_class = ray.remote(ClientActor)
        dataset_ref = ray.put(dataset)
        config_ref = ray.put(config)
        self._actors: list[Any] = [
            actor_class.options(
                name=f"clients-{min(spec.client for spec in specs):04d}",
                num_cpus=placement.cpus_per_actor,
                num_gpus=placement.gpus_per_actor,
            ).remote(config_ref, dataset_ref, specs)
            for specs in hosted
        ]
        self._actor_of = {
            spec.client: actor for actor, specs in zip(self._actors, hosted, strict=True) for spec in specs
        }
        ray.get([actor.ready.remote() for actor in self._actors])

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """See `Pool.map`. Results wait in the object store until their turn; the coordinator holds one at a time."""
        references = [ray.put(argument) for argument in arguments]
        pending = [self._actor_of[client].run.remote(task, client, *references) for client in clients]
        pending.reverse()
        while pending:
            try:
                result = ray.get(pending.pop())
            except RayTaskError as error:
                # Ray's error carries the worker's trace in its text; ours is one line that names the client.
                if isinstance(error.cause, FedvtcError):
                    raise error.cause from error
                raise
            yield result

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            ray.kill(actor)


def drop_launcher_variables() -> None:
    """Forgets the ranks that a launcher such as Slurm gave to the process that started Ray.

    Lightning would read them as this actor's own, write no logs on any rank but 0, and requeue the whole job.
    """
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]
