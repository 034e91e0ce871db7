"""Clients in Ray actors: who lives where, and how lost actors are replaced. What an actor does is in `host.py`.

Nothing that imports Lightning is imported at the top, because a worker imports this file before the actor's
constructor has cleaned the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from fedvtc.errors import ClusterError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fedvtc.checkpoint import CheckpointStore, Shard
    from fedvtc.client import ClientSpec
    from fedvtc.config.schema import Config
    from fedvtc.data import Dataset
    from fedvtc.incidents import Incidents
    from fedvtc.runtime.lineage import History, Lineage

RESOURCE_POLL_S = 0.5


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
        return self._host.perform(task, client, *arguments)

    def rebuild(self, client: int, history: History) -> list[str]:
        """See `ClientHost.rebuild`; the broadcasts of the history are references."""
        steps = tuple((task, round, ray.get(broadcast)) for task, round, broadcast in history.steps)
        rebuilt: list[str] = self._host.perform("rebuild", client, replace(history, steps=steps))
        return rebuilt

    def adopt(self, specs: Sequence[ClientSpec]) -> None:
        """See `ClientHost.adopt`."""
        self._host.adopt(specs)

    def save(self, client: int, store: CheckpointStore, draft: str) -> Shard:
        """See `ClientHost.save`; runs in the thread that writes."""
        return self._host.save(client, store, draft)

    def ready(self) -> int:
        """Returns the process once all that was asked before is done."""
        return os.getpid()


class Home:
    """An actor, the clients that live in it, and whether it has come up.

    Args:
        actor: the handle.
        specs: its clients.
    """

    def __init__(self, actor: Any, specs: Sequence[ClientSpec]) -> None:
        self.actor, self.specs = actor, list(specs)
        self.up = actor.ready.remote()


class RayPool:
    """Actors that live as long as the run; each client stays where it was put, unless its actor is lost.

    Args:
        config: of the federation.
        dataset: put into the object store once; every node holds it once.
        hosted: the clients of each actor.
        lineage: how to build clients again.
        incidents: hear of lost actors.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        hosted: Sequence[Sequence[ClientSpec]],
        lineage: Lineage,
        incidents: Incidents,
    ) -> None:
        self.config, self.lineage, self.incidents = config, lineage, incidents
        # One thread works, in the order of the calls; another one writes checkpoints.
        self._actor_class = ray.remote(concurrency_groups={"checkpoint": 1})(ClientActor)  # type: ignore[call-overload]
        self._dataset_ref, self._config_ref = ray.put(dataset), ray.put(config)
        self._num_started = 0
        self.homes: list[Home] = []
        self._home_of: dict[int, Home] = {}
        for specs in hosted:
            self._start(specs)
        # Any call would do: actors that are lost on the way up are replaced as in a round.
        for _ in self.map("process_id", sorted(self._home_of)):
            pass

    def home_of(self, client: int) -> Home:
        """Where the client lives."""
        return self._home_of[client]

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """See `Pool.map`. Results wait in the object store until their turn; the coordinator holds one at a time."""
        from fedvtc.runtime.calls import Calls

        return Calls(self, task, clients, arguments).results()

    def restore(self, clients: Sequence[int]) -> None:
        """See `Pool.restore`."""
        for _ in self.map("rebuild", clients):
            pass

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[Shard]]:
        """See `Pool.save`."""
        for _ in self.map("hold", clients):
            pass
        saved = []
        for client in clients:
            save = self._home_of[client].actor.save.options(concurrency_group="checkpoint")
            saved.append(save.remote(client, store, draft).future())
        return saved

    def replace(self, home: Home) -> list[Home]:
        """Gives the clients of a lost actor another home; they are not built there yet.

        Returns:
            Their new homes: a new actor, or the ones that are left where none can be started.

        Raises:
            ClusterError: no actor is left, and there are no free resources for a new one.
        """
        ray.kill(home.actor)
        self.homes.remove(home)
        if self._slot_is_free():
            return [self._start(home.specs)]
        if not self.homes:
            seconds = self.config.runtime.replace_timeout_s
            raise ClusterError(
                f"cluster: all actors are lost, and in {seconds:g} s no resources for a new one came free. "
                "Add nodes and resume, or set runtime.replace_timeout_s higher."
            )
        return [self._move(spec) for spec in home.specs]

    def close(self) -> None:
        """Ends the actors."""
        for home in self.homes:
            ray.kill(home.actor)

    def _start(self, specs: Sequence[ClientSpec]) -> Home:
        placement = self.config.placement
        # The name of a lost actor may still be taken.
        self._num_started += 1
        options = {
            "name": f"clients-{min(spec.client for spec in specs):04d}-{self._num_started}",
            "num_cpus": placement.cpus_per_actor,
            "num_gpus": placement.gpus_per_actor or 0.0,
        }
        home = Home(self._actor_class.options(**options).remote(self._config_ref, self._dataset_ref, specs), specs)
        self.homes.append(home)
        self._home_of |= {spec.client: home for spec in specs}
        return home

    def _move(self, spec: ClientSpec) -> Home:
        """Puts a client into the actor that has fewest."""
        home = min(self.homes, key=lambda home: len(home.specs))
        home.actor.adopt.remote([spec])
        home.specs.append(spec)
        self._home_of[spec.client] = home
        return home

    def _slot_is_free(self) -> bool:
        """Waits until a new actor would find its resources, for some time only."""
        from fedvtc.runtime.cluster import free_resources

        placement = self.config.placement
        until_s = time.monotonic() + self.config.runtime.replace_timeout_s
        while True:
            num_cpus, num_gpus = free_resources()
            if num_cpus >= placement.cpus_per_actor - 1e-6 and num_gpus >= (placement.gpus_per_actor or 0.0) - 1e-6:
                return True
            if time.monotonic() > until_s:
                return False
            time.sleep(RESOURCE_POLL_S)


def drop_launcher_variables() -> None:
    """Forgets the ranks that a launcher such as Slurm gave to the process that started Ray.

    Lightning would read them as this actor's own, write no logs on any rank but 0, and requeue the whole job.
    """
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]
