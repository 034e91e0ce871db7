"""The open calls of each client during one task: the rebuild of the client, and the task itself."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError, ClientMemoryError
from fedvtc.runtime.actors.errors import cause_of
from fedvtc.runtime.actors.handle import ActorHandle
from fedvtc.runtime.actors.stream import Failed, Stream
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.tasks import ClientTask, is_changing


class Given(NamedTuple):
    """A client's state, on its way from one actor to another.

    Attributes:
        is_given: ready once the actor has given the state.
        state: the state, which the coordinator never reads.
    """

    is_given: ObjectRef[bool]
    state: ObjectRef[bytes]


class Actors(Protocol):
    """The actors of a pool, as a task on many clients needs them."""

    config: Config
    lineage: Lineage
    incidents: Incidents
    handles: list[ActorHandle]
    """The actors that are not lost."""
    moved: dict[int, Given | None]
    """Clients that the next call has to rebuild in another actor, with the states that they had."""

    def handle_of(self, client: int) -> ActorHandle:
        """Returns the actor that the client lives in."""

    def deal(
        self,
        waiting: Mapping[ActorHandle, Sequence[int]],
        busy: Mapping[ActorHandle, float],
        costs: Mapping[int, float],
    ) -> dict[int, ActorHandle]:
        """Returns the new actor of each waiting client that had better wait for another actor.

        Args:
            waiting: the clients that wait for each actor.
            busy: cost of the clients that each actor works on.
            costs: cost of each waiting client.
        """

    def move(self, client: int, handle: ActorHandle) -> None:
        """Moves a client to another actor, where the next call has to rebuild the client, see `moved`."""

    def replace(self, handle: ActorHandle) -> list[ActorHandle]:
        """Starts a new actor in the slot of a lost actor; returns the new actor, where no client is built yet."""

    def redistribute(self, handle: ActorHandle) -> list[ActorHandle]:
        """Moves the clients of an actor without a slot; returns their new actors, where they are not yet built."""


class OpenCalls:
    """Sends calls to the actors where the clients live, and keeps the open calls of each client.

    The task is one call for all clients of an actor, whose results arrive one by one; a rebuild is a call of its own.

    A task that is a step is recorded in the lineage, with each client that completes the step. The step of a client is
    recorded as soon as its result is seen, so that every later history of the client contains the step.

    Args:
        actors: the actors of the clients.
        task: a method of `ClientHost`; the argument of `ClientHost.rebuild` is taken from the lineage.
        arguments: the other arguments of the task, equal for all clients.
    """

    def __init__(self, actors: Actors, task: ClientTask, arguments: Sequence[Any]) -> None:
        self._actors, self._task = actors, task
        self._arguments = [ray.put(argument) for argument in arguments]
        self.round, self._step = 0, None
        if is_changing(task):
            self.round = arguments[0].round + 1
            self._step = actors.lineage.begin(task, self.round, self._arguments[0], arguments[0].num_bytes)
        self.tasks: dict[int, Stream | ObjectRef[Any]] = {}
        self.rebuilds: dict[int, ObjectRef[Any]] = {}
        self.sent_to: dict[int, ActorHandle] = {}
        self._sent: dict[tuple[int, bool], None] = {}
        """Each client with a call, and True for a rebuild or False for the task, in the order of sending."""

    def send(self, clients: Sequence[int]) -> None:
        """Sends the task to the actors where the clients live, one call for each actor."""
        hosted: dict[ActorHandle, list[int]] = {}
        for client in clients:
            handle = self._actors.handle_of(client)
            hosted.setdefault(handle, []).append(client)
            # Removed first, so that the dict keeps the clients in the order of sending.
            self.sent_to.pop(client, None)
            self.sent_to[client] = handle
            self._note_sent(client, is_rebuild=False)
        if self._task is ClientHost.rebuild:
            self.tasks |= {client: self._sent_rebuild(client) for client in clients}
            return
        for handle, group in hosted.items():
            run = handle.actor.run.options(num_returns="streaming")
            stream = Stream(run.remote(self._task.__name__, group, *self._arguments), group)
            self.tasks |= dict.fromkeys(group, stream)

    def rebuild(self, client: int) -> None:
        """Sends the rebuild of the client to the actor where the client lives."""
        self.rebuilds[client] = self._sent_rebuild(client)
        self._note_sent(client, is_rebuild=True)

    def repeat(self, client: int) -> None:
        """Sends the rebuild of a client, and again the task if open; a step whose result was lost is not completed."""
        if client in self.tasks and self._step is not None:
            self._step.clients.discard(client)
        self.rebuild(client)
        if client in self.tasks:
            self.send([client])

    def skip(self, client: int, error: ClientError) -> None:
        """Makes the error the result of the client's open task."""
        self.tasks[client] = ray.put(error)

    def take_rebuild(self, client: int) -> list[str]:
        """Returns the result of the client's rebuild; the rebuild stays open if it failed."""
        damaged: list[str] = ray.get(self.rebuilds[client])
        del self.rebuilds[client]
        return damaged

    def take_result(self, client: int) -> Any:
        """Returns the result of the client's task; the task stays open if it failed.

        Raises:
            FedvtcError: the task failed.
            RayError: the actor was lost, or could not run the task.
        """
        reference = self._result_of(client)
        assert reference is not None
        result = ray.get(reference)
        if isinstance(result, Failed):
            raise result.error
        self.close(client, result)
        return result

    def close(self, client: int, result: Any) -> None:
        """Ends the task of the client with a result."""
        task = self.tasks.pop(client)
        if isinstance(task, Stream):
            task.release(client)
        self._record_step(client, result)

    def unfinished(self) -> list[int]:
        """Returns the clients with an open call."""
        return [*self.rebuilds, *self.tasks]

    def undone(self, client: int) -> Any:
        """Returns an object for `ray.wait`, ready once a call of the client may be done; None if no call is open."""
        rebuild, task = self.rebuilds.get(client), self.tasks.get(client)
        if rebuild is not None and not _is_there(rebuild):
            return rebuild
        if isinstance(task, Stream):
            return task.generator if task.result_of(client) is None else None
        return None if task is None or _is_there(task) else task

    def left(self, handle: ActorHandle) -> tuple[frozenset[int], frozenset[int]]:
        """Returns the clients of the actor whose task is not done, and the clients whose rebuild is not done."""
        tasks = [client for client in handle.clients if client in self.tasks and self._result_of(client) is None]
        open_rebuilds = [client for client in handle.clients if client in self.rebuilds]
        rebuilds = [client for client in open_rebuilds if not _is_there(self.rebuilds[client], fetch_local=False)]
        return frozenset(tasks), frozenset(rebuilds)

    def unanswered(self, handle: ActorHandle) -> list[int]:
        """Returns the clients of the actor without an answer to the task, in the order of sending."""
        return [
            client
            for client in self.sent_to
            if self._actors.handle_of(client) is handle and client in self.tasks and not self._has_answered(client)
        ]

    def at_work(self, handle: ActorHandle) -> int | None:
        """Returns the client of the first call that the actor has not completed; None if no call is open."""
        unanswered = self.unanswered(handle)
        for client, is_rebuild in self._sent:
            if not is_rebuild and client in unanswered:
                return client
            is_here = is_rebuild and client in self.rebuilds and self._actors.handle_of(client) is handle
            if is_here and not self.is_built(client):
                return client
        return None

    def is_built(self, client: int) -> bool:
        """Returns True if the client's open rebuild is done."""
        reference = self.rebuilds[client]
        if not _is_there(reference):
            return False
        try:
            ray.get(reference)
        except RayError:
            return False
        return True

    def _result_of(self, client: int) -> ObjectRef[Any] | None:
        """Returns the reference of the result of the client's task; None if there is no result yet."""
        task = self.tasks[client]
        if isinstance(task, Stream):
            return task.result_of(client)
        return task if _is_there(task) else None

    def _has_answered(self, client: int) -> bool:
        """Returns True if the client's task has a result that outlives the actor."""
        reference = self._result_of(client)
        if reference is None:
            return False
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            return self._is_answer(client, cause_of(error))
        except RayError:
            return False
        if isinstance(result, Failed):
            return self._is_answer(client, result.error)
        self._record_step(client, result)
        return True

    def _is_answer(self, client: int, error: Exception) -> bool:
        """Returns True if the error is that of the task; a client whose rebuild failed was absent for the task."""
        was_there = client not in self.rebuilds or self.is_built(client)
        return was_there and not isinstance(error, ClientMemoryError)

    def _record_step(self, client: int, result: Any) -> None:
        """Records in the lineage that the client completed the step; a skipped client did not."""
        if self._step is not None and not isinstance(result, ClientError):
            self._step.clients.add(client)

    def _note_sent(self, client: int, *, is_rebuild: bool) -> None:
        # Removed first, so that the dict keeps the calls in the order of sending.
        self._sent.pop((client, is_rebuild), None)
        self._sent[client, is_rebuild] = None

    def _sent_rebuild(self, client: int) -> ObjectRef[Any]:
        actor, given = self._actors.handle_of(client).actor, self._actors.moved.pop(client, None)
        reference: ObjectRef[Any]
        if given is not None:
            # Without a state from its lost actor, a client is rebuilt from the lineage.
            with suppress(RayError):
                ray.get(given.is_given, timeout=self._actors.config.runtime.client_timeout_s)
                reference = actor.take.remote(client, given.state)
                return reference
        reference = actor.rebuild.remote(client, self._actors.lineage.history(client))
        return reference


def _is_there(reference: ObjectRef[Any], *, fetch_local: bool = True) -> bool:
    return bool(ray.wait([reference], timeout=0, fetch_local=fetch_local)[0])
