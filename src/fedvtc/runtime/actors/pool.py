"""Pool of Ray actors: which client lives in which actor, and replacements of lost actors."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError, ClusterError
from fedvtc.learning.data import Dataset
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.actors.actor import ClientActor
from fedvtc.runtime.actors.calls import Calls
from fedvtc.runtime.actors.handle import ActorHandle
from fedvtc.runtime.actors.open_calls import Given
from fedvtc.runtime.actors.slots import Slot, those_there
from fedvtc.runtime.actors.waiting import Waiting
from fedvtc.runtime.balance import Workload, moves
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.tasks import Arguments, ClientTask, Result
from fedvtc.storage.checkpoints import CheckpointStore, Shard

CLIENTS_PER_SAVE = 16
"""Clients that a call writes into a checkpoint. A call for each client costs two thirds as much as to write a small
client; one call for all clients would show no progress."""


MOVE_S = 0.01
"""Seconds by which each move must shorten a round; the move of a small client takes about as long."""


class RayPool:
    """Actors that live as long as the run; a client moves only if its actor is lost, or to shorten a round.

    Args:
        config: the run's config.
        dataset: the images of all clients, put into the object store once; each node holds one copy.
        hosted: the clients of each actor.
        slots: slots for actors: the first ones, one per entry of `hosted`, are used now; the others once nodes provide
            them.
        workload: the measured cost of a round for each client.
        namespace: Ray namespace that keeps the actor names of this run apart from those of other runs.
        lineage: records the steps of the clients.
        incidents: reports lost actors, failed clients and damaged checkpoints.
        idle_folder: folder for the states of idle clients, as in `ClientHost`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        hosted: Sequence[Sequence[ClientSpec]],
        slots: Sequence[Slot],
        workload: Workload,
        *,
        namespace: str,
        lineage: Lineage,
        incidents: Incidents,
        idle_folder: Path | None = None,
    ) -> None:
        self.config, self.lineage, self.incidents = config, lineage, incidents
        self._slots, self._workload, self._namespace = slots, workload, namespace
        self._idle_folder = idle_folder
        # The default thread of an actor runs tasks in the order of the calls; a second thread writes checkpoints, and a
        # third one gives away the states of clients that move.
        self._actor_class = ray.remote(concurrency_groups={"checkpoint": 1, "move": 1})(ClientActor)  # type: ignore[call-overload]
        self._dataset_ref, self._config_ref = ray.put(dataset), ray.put(config)
        self._num_started = 0
        self.handles: list[ActorHandle] = []
        self.moved: dict[int, Given | None] = {}
        self._handle_of: dict[int, ActorHandle] = {}
        for slot, specs in zip(slots, hosted, strict=False):
            self._start(slot, specs)

    def check(self) -> None:
        """Returns once every actor answers, as `Pool.check` says.

        Raises:
            ClusterError: an actor reserves a GPU, and Ray or PyTorch gives none.
        """
        # Any task serves, on any client of each actor: `map` replaces lost actors.
        for _ in self.map(ClientHost.process_id, [min(handle.clients) for handle in self.handles if handle.specs]):
            pass

    def handle_of(self, client: int) -> ActorHandle:
        """Returns the actor that the client lives in."""
        return self._handle_of[client]

    def map(
        self, task: Callable[[ClientHost, int, *Arguments], Result], clients: Sequence[int], *arguments: *Arguments
    ) -> Iterator[Result | ClientError]:
        """Runs one task on each client, as `Pool.map` says.

        Results wait in Ray's object store; the coordinator holds one result at a time.
        """
        return self._results(task, clients, arguments)

    def _results(self, task: ClientTask, clients: Sequence[int], arguments: Sequence[Any]) -> Iterator[Any]:
        if task is not ClientHost.run_round:
            yield from Calls(self, task, clients, arguments).results()
            return
        expected = self._workload.expected()
        waiting = Waiting(self, {client: expected[client] for client in clients})
        self._workload.begin([*waiting.queues.values()])
        for result in Calls(self, task, clients, arguments, waiting).results():
            if not isinstance(result, ClientError):
                self._workload.done(result.client, self._handle_of[result.client], result.scalars["time/client"])
            yield result

    def record(self) -> dict[str, float]:
        """Returns the measurements of the last round's placement, as `Pool.record` says."""
        return {"placement/actors": len(self.handles), **self._workload.record()}

    def restore(self, clients: Sequence[int]) -> None:
        """Rebuilds the clients from the lineage, as `Pool.restore` says."""
        for _ in self._results(ClientHost.rebuild, clients, ()):
            pass

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[list[Shard]]]:
        """Starts to write the present state of each client in its actor, as `Pool.save` says."""
        for _ in self.map(ClientHost.hold, clients):
            pass
        hosted: dict[ActorHandle, list[int]] = {}
        for client in clients:
            hosted.setdefault(self._handle_of[client], []).append(client)
        saved = []
        for handle, group in hosted.items():
            save = handle.actor.save.options(concurrency_group="checkpoint")
            for first in range(0, len(group), CLIENTS_PER_SAVE):
                saved.append(save.remote(group[first : first + CLIENTS_PER_SAVE], store, draft).future())
        return saved

    def deal(
        self,
        waiting: Mapping[ActorHandle, Sequence[int]],
        busy: Mapping[ActorHandle, float],
        costs: Mapping[int, float],
    ) -> dict[int, ActorHandle]:
        """Returns the new actor of each waiting client that had better wait for another actor, as `Actors.deal` says.

        The actor may be new, in a free slot.
        """
        # Only before a round, because a new actor takes seconds to start.
        free = [] if any(busy.values()) else self._free_slots()
        if len(self.handles) + len(free) == 1:
            return {}
        queues = [waiting.get(handle, ()) for handle in self.handles] + [() for _ in free]
        limit, sizes = self.config.placement.clients_per_actor, [len(handle.specs) for handle in self.handles]
        # After the loss of actors, an actor may have more clients than the limit.
        most = math.inf if isinstance(limit, str) else max(limit, *sizes)
        for handle, queue in waiting.items():
            for client in queue:
                sizes[self.handles.index(handle)] += 1
                sizes[self.handles.index(self._handle_of[client])] -= 1
        loads = [*(busy.get(handle, 0.0) for handle in self.handles), *(0.0 for _ in free)]
        rooms = [most - size for size in (*sizes, *(0 for _ in free))]
        new_actor_of, gain = moves(costs, queues, loads, rooms)
        # Before the first measurement, costs are no seconds; clients then have no state, and move at no cost.
        if gain <= MOVE_S * len(new_actor_of):
            return {}
        actors, used = dict(enumerate(self.handles)), set(new_actor_of.values())
        for index, slot in enumerate(free, len(actors)):
            if index in used:
                actors[index] = self._start(slot, [])
        return {client: actors[index] for client, index in new_actor_of.items()}

    def move(self, client: int, handle: ActorHandle) -> None:
        """Moves a client to another actor, where the next call has to rebuild the client, as `Actors.move` says."""
        old = self._handle_of[client]
        self.moved[client] = self._given(client)
        (spec,) = (spec for spec in old.specs if spec.client == client)
        old.specs = [spec for spec in old.specs if spec.client != client]
        self._assign(spec, handle)

    def replace(self, handle: ActorHandle) -> list[ActorHandle]:
        """Starts a new actor in the slot of a lost actor; returns the new actor, where no client is built yet.

        If the node of the lost actor died, the new actor starts once Ray has moved the slot to another node.
        """
        self._end(handle)
        return [self._start(handle.slot, handle.specs)]

    def redistribute(self, handle: ActorHandle) -> list[ActorHandle]:
        """Moves the clients of an actor without a slot to other actors, where these clients are not built yet.

        Returns:
            A new actor if a slot is free, else the present actors that the clients moved to.

        Raises:
            ClusterError: no slot is free, and no actor is left.
        """
        self._end(handle)
        free = self._free_slots()
        if free:
            return [self._start(free[0], handle.specs)]
        if not self.handles:
            seconds = self.config.runtime.replace_timeout_s
            raise ClusterError(
                f"cluster: all actors are lost, and no resources for a new actor came free in {seconds:g} s. "
                "Add nodes and resume, or set runtime.replace_timeout_s higher."
            )
        expected = self._workload.expected()
        # Actors that have not started may wait for a slot of their own.
        handles = [other for other in self.handles if other.has_come_up] or self.handles
        loads = {other: sum(expected[client] for client in other.clients) for other in handles}
        assigned = []
        for spec in handle.specs:
            idlest = min(loads, key=lambda other: loads[other])
            loads[idlest] += expected[spec.client]
            assigned.append(self._assign(spec, idlest))
        return assigned

    def close(self) -> None:
        """Ends the actors."""
        for handle in self.handles:
            ray.kill(handle.actor)

    def _start(self, slot: Slot, specs: Sequence[ClientSpec]) -> ActorHandle:
        # Numbered, because the name of a lost actor may still be taken.
        self._num_started += 1
        name = f"clients-{self._num_started:04d}"
        actor = self._actor_class.options(name=name, namespace=self._namespace, **slot.options()).remote(
            self._config_ref, self._dataset_ref, specs, slot.needs.num_gpus, self._idle_folder
        )
        handle = ActorHandle(actor, slot, specs)
        self.handles.append(handle)
        self._handle_of |= {spec.client: handle for spec in specs}
        return handle

    def _end(self, handle: ActorHandle) -> None:
        ray.kill(handle.actor)
        self.handles.remove(handle)

    def _assign(self, spec: ClientSpec, handle: ActorHandle) -> ActorHandle:
        """Adds a client to an actor; the client is not built there yet."""
        handle.actor.adopt.remote([spec])
        handle.specs.append(spec)
        self._handle_of[spec.client] = handle
        return handle

    def _free_slots(self) -> list[Slot]:
        """Returns the slots that nodes provide and no actor uses."""
        taken = {handle.slot for handle in self.handles}
        return those_there([slot for slot in self._slots if slot not in taken])

    def _given(self, client: int) -> Given | None:
        """Takes a client out of its actor; returns None for a client that has not worked, and so has no state."""
        actor = self._handle_of[client].actor
        if not self.lineage.history(client).has_state:
            actor.forget.remote(client)
            return None
        return Given(*actor.give.options(num_returns=2, concurrency_group="move").remote(client))
