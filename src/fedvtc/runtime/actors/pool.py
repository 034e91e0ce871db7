"""Clients in Ray actors: who lives where, and how lost actors are replaced."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import ray

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError, ClusterError
from fedvtc.learning.data import Dataset
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.actors.actor import ClientActor
from fedvtc.runtime.actors.handle import Home
from fedvtc.runtime.actors.slots import Place, those_there
from fedvtc.runtime.balance import Workload, loads_of, moves
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Shard


class RayPool:
    """Actors that live as long as the run; each client stays where it was put, unless it pays to move it.

    Args:
        config: of the federation.
        dataset: put into the object store once; every node holds it once.
        hosted: the clients of each actor.
        places: one for each actor comes first; those after them are used once they are there.
        workload: what rounds cost the clients.
        namespace: keeps the names of this run's actors apart from those of other runs.
        lineage: how to build clients again.
        incidents: hear of lost actors.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        hosted: Sequence[Sequence[ClientSpec]],
        places: Sequence[Place],
        workload: Workload,
        *,
        namespace: str,
        lineage: Lineage,
        incidents: Incidents,
    ) -> None:
        self.config, self.lineage, self.incidents = config, lineage, incidents
        self._places, self._workload, self._namespace = places, workload, namespace
        # One thread works, in the order of the calls; another one writes checkpoints.
        self._actor_class = ray.remote(concurrency_groups={"checkpoint": 1})(ClientActor)  # type: ignore[call-overload]
        self._dataset_ref, self._config_ref = ray.put(dataset), ray.put(config)
        self._num_started = 0
        self.homes: list[Home] = []
        self._home_of: dict[int, Home] = {}
        for place, specs in zip(places, hosted, strict=False):
            self._start(place, specs)

    def start(self) -> None:
        """Returns once every actor answers.

        Raises:
            ClusterError: an actor has no GPU, and was to have one.
        """
        # Any call would do: actors that are lost on the way up are replaced as in a round.
        for _ in self.map("process_id", sorted(self._home_of)):
            pass

    def home_of(self, client: int) -> Home:
        """Where the client lives."""
        return self._home_of[client]

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """See `Pool.map`. Results wait in the object store until their turn; the coordinator holds one at a time."""
        from fedvtc.runtime.actors.calls import Calls

        if task != "run_round":
            yield from Calls(self, task, clients, arguments).results()
            return
        self._rearrange(arguments[0].round + 1)
        participants = set(clients)
        self._workload.begin([participants.intersection(home.clients) for home in self.homes])
        for result in Calls(self, task, clients, arguments).results():
            if not isinstance(result, ClientError):
                self._workload.done(result.client, self._home_of[result.client], result.scalars["time/client"])
            yield result

    def record(self) -> dict[str, float]:
        """See `Pool.record`."""
        return {"placement/actors": len(self.homes), **self._workload.record()}

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
        """Gives the clients of a lost actor a new one in the same place; they are not built there yet.

        Where its node died, the new one comes up once Ray has moved the place to a node with room.
        """
        self._end(home)
        return [self._start(home.place, home.specs)]

    def disperse(self, home: Home) -> list[Home]:
        """Gives the clients of an actor that found no room to others; they are not built there yet.

        Returns:
            Their new homes: a new actor where there is a place for one, or those that are left.

        Raises:
            ClusterError: there is neither.
        """
        self._end(home)
        free = self._free_places()
        if free:
            return [self._start(free[0], home.specs)]
        if not self.homes:
            seconds = self.config.runtime.replace_timeout_s
            raise ClusterError(
                f"cluster: all actors are lost, and in {seconds:g} s no resources for a new one came free. "
                "Add nodes and resume, or set runtime.replace_timeout_s higher."
            )
        return [self._settle(spec, self._least_busy()) for spec in home.specs]

    def close(self) -> None:
        """Ends the actors."""
        for home in self.homes:
            ray.kill(home.actor)

    def _start(self, place: Place, specs: Sequence[ClientSpec]) -> Home:
        # The name of a lost actor may still be taken.
        self._num_started += 1
        name = f"clients-{min(spec.client for spec in specs):04d}-{self._num_started}"
        actor = self._actor_class.options(name=name, namespace=self._namespace, **place.options()).remote(
            self._config_ref, self._dataset_ref, specs, place.needs.num_gpus
        )
        home = Home(actor, place, specs)
        self.homes.append(home)
        self._home_of |= {spec.client: home for spec in specs}
        return home

    def _end(self, home: Home) -> None:
        ray.kill(home.actor)
        self.homes.remove(home)

    def _settle(self, spec: ClientSpec, home: Home) -> Home:
        """Gives a client a home; it is not built there yet."""
        home.actor.adopt.remote([spec])
        home.specs.append(spec)
        self._home_of[spec.client] = home
        return home

    def _least_busy(self) -> Home:
        expected = self._workload.expected()
        # Others may have lost their node with it, and wait for room too.
        homes = [home for home in self.homes if home.has_come_up] or self.homes
        return min(homes, key=lambda home: sum(expected[client] for client in home.clients))

    def _free_places(self) -> list[Place]:
        """Places that are there, and no actor in them."""
        taken = {home.place for home in self.homes}
        return those_there([place for place in self._places if place not in taken])

    def _rearrange(self, round: int) -> None:
        """Moves clients before a round, also to new actors in places that came up, where that pays until the end.

        A client that moves is built again from its lineage, as one that was lost.
        """
        free = self._free_places()
        if not free and not self._workload.is_known:
            return
        hosts = [home.clients for home in self.homes] + [[] for _ in free]
        expected = self._workload.expected()
        limit = self.config.placement.clients_per_actor
        # With actors lost, there may be more clients in one than it was to have.
        most = len(expected) if isinstance(limit, str) else max(limit, *map(len, hosts))
        made = moves(expected, hosts, most)
        if not made:
            return
        after = [[client for client in clients if client not in made] for clients in hosts]
        for client, host in made.items():
            after[host].append(client)
        gain = max(loads_of(expected, hosts)) - max(loads_of(expected, after))
        rebuilding = sum(expected[client] for client in made) * self.lineage.num_steps
        if gain * (self.config.run.rounds - round + 1) <= rebuilding:
            return
        homes: list[Home | Place] = [*self.homes, *free]
        for client, host in made.items():
            old, new = self._home_of[client], homes[host]
            (spec,) = (spec for spec in old.specs if spec.client == client)
            old.specs = [spec for spec in old.specs if spec.client != client]
            # It first sets aside what a checkpoint has yet to write of the client.
            old.actor.run.remote("forget", client)
            if isinstance(new, Place):
                homes[host] = self._start(new, [spec])
            else:
                self._settle(spec, new)
        self.restore(list(made))
