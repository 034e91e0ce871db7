"""Runs one task on many clients in Ray actors, and recovers when actors are lost.

The problem
    The clients of a task live in actors, several in one. An actor can die, hang or run out of memory at any moment:
    before, during or after the call of a client, or while a client is rebuilt. A lost actor loses the state of all its
    clients, also of clients without a part in the task, and every call that the actor has not run. The results must
    arrive in client order and with the bits of an uninterrupted task, while the other actors keep working.

What does not work
    * Ray's own restarts (`max_restarts`, `max_task_retries`). A restarted actor has run its constructor but none of the
      steps of its clients, so a retried call would train a client in its initial state.
    * To retry the failed call alone. The other clients of the lost actor would be absent from the new actor.
    * To wait for results alone. A call never fails if its actor hangs or waits for a slot, and no result fails if the
      lost actor had answered for all of its clients.
    * To retry forever. A client that kills its process each time would keep the run from ending, so each loss must
      count for one client, and Ray does not say which client was at work.

The solution
    Each client has at most two open calls (`OpenCalls`): the rebuild of the client, and the task. Both go to the actor
    where the client lives now, the rebuild first. The task is one call for all clients of an actor (`Stream`), or a few
    in a round (`Waiting`), whose results are seen one by one; an error of a client is a result too. A lost actor is
    replaced at once (`_lost`): all of its clients are rebuilt in the new actor from the lineage, and clients without an
    answer repeat the task. A completed step is recorded as soon as its result is seen, and before any history is made,
    so that a rebuilt client takes each step once. `ActorWatch` notices actors that end or hang without a failed result.
    An actor runs its calls in the order in which they were sent, so a loss counts for the client of the first open
    call, which may be the rebuild of a client without an open task (`Retries`).

States of a client
    | rebuild open | task open | state                                  | next state                                   |
    |--------------|-----------|----------------------------------------|----------------------------------------------|
    | no           | no        | idle: has answered, or takes no part   | actor lost: rebuilding                       |
    | no           | yes       | working                                | result: idle. Skipped: rebuilding. Error     |
    |              |           |                                        | that is retried, or actor lost: recovering   |
    | yes          | yes       | recovering: rebuild, then task         | rebuilt: working. Actor lost: recovering     |
    | yes          | no        | rebuilding                             | rebuilt: idle. Actor lost: rebuilding        |

A client that waits for its turn is as one without a part in the task, until its task is sent.
A client that is skipped because its actor was lost is recovering too: the error takes the place of its result. The task
`ClientHost.rebuild` itself counts as the task of a client, not as its rebuild.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ray.exceptions import ObjectLostError, RayError, RayTaskError

from fedvtc.errors import ClientError, ClientMemoryError, FedvtcError
from fedvtc.runtime.actors.errors import NODE_DIED, cause_of, reason_of
from fedvtc.runtime.actors.handle import ActorHandle
from fedvtc.runtime.actors.open_calls import Actors, OpenCalls
from fedvtc.runtime.actors.waiting import Waiting
from fedvtc.runtime.actors.watch import ActorWatch
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.retries import Retries
from fedvtc.runtime.tasks import ClientTask


class Calls:
    """The calls of one task.

    Args:
        actors: the actors, and the way to replace an actor.
        task: a method of `ClientHost`; the argument of `ClientHost.rebuild` is taken from the lineage.
        clients: the clients to run the task on.
        arguments: the other arguments of the task, equal for all clients.
        waiting: the same clients, to be handed out step by step; None sends the task to all clients at once.
    """

    def __init__(
        self,
        actors: Actors,
        task: ClientTask,
        clients: Sequence[int],
        arguments: Sequence[Any],
        waiting: Waiting | None = None,
    ) -> None:
        self._actors, self._task, self._clients, self._waiting = actors, task, clients, waiting
        self._open = OpenCalls(actors, task, arguments)
        self._retries = Retries(actors.config.runtime, actors.incidents, task)
        self._watch = ActorWatch()

    def results(self) -> Iterator[Any]:
        """Yields the result of each client in the order of the clients; the `ClientError` of a skipped client."""
        if self._waiting is None:
            self._open.send(self._clients)
            for handle in {self._actors.handle_of(client): None for client in self._clients}:
                self._watch.add(handle)
        for client in self._clients:
            yield self._result(client)
        # Clients that take no part, and clients that have answered, may have lost their actor too.
        while unfinished := self._open.unfinished():
            self._result(unfinished[0])

    def _result(self, client: int) -> Any:
        """Waits until the client is idle; returns the result of its task, None if only its rebuild was open."""
        while True:
            self._wait(client)
            handle = self._actors.handle_of(client)
            try:
                if client in self._open.rebuilds:
                    self._report_damage(self._open.take_rebuild(client))
                if client not in self._open.tasks:
                    return None
                result = self._open.take_result(client)
            except (FedvtcError, RayTaskError) as error:
                cause = cause_of(error) if isinstance(error, RayTaskError) else error
                skipped = self._failed(cause, client, handle)
                if skipped is None:
                    continue
                self._open.close(client, skipped)
                return skipped
            except ObjectLostError:
                # The actor lives, but the result lay on a node that was lost.
                self._repeat(client)
            except RayError as error:
                # A rebuild always goes to the present actor; a task may have gone to an actor before that one.
                if client in self._open.rebuilds or self._open.sent_to[client] is handle:
                    self._lost(handle, reason_of(error))
                else:
                    self._repeat(client)
            else:
                if self._task is ClientHost.rebuild:
                    self._report_damage(result)
                return result

    def _wait(self, client: int) -> None:
        """Waits until the open calls of the client are done; replaces actors that are lost in the meantime."""
        # Looked up in every pass, because the replacement of an actor opens new calls.
        while awaited := self._awaited(client):
            lost = self._watch.wait(awaited)
            if lost is None:
                continue
            for handle, error in lost:
                self._lost(handle, reason_of(error))
            self._replace_hanging()
            self._redistribute_slotless()

    def _awaited(self, client: int) -> list[Any]:
        """Returns the objects of Ray to wait for until the open calls of the client are done; empty if they are.

        Sends waiting clients to actors that have little left to do, so that a waiting client has an object to wait for.
        """
        if self._waiting is not None:
            for handle in self._waiting.hand_out(self._open):
                self._watch.add(handle)
        undone = self._open.undone(client)
        own = [] if undone is None else [undone]
        if self._waiting is None or not (own or client in self._waiting):
            return own
        return own + self._waiting.progress

    def _failed(self, cause: Exception, client: int, handle: ActorHandle) -> ClientError | None:
        """Handles an error of the client's call; returns None for a retry, and the error if the client is skipped."""
        if isinstance(cause, ClientMemoryError):
            # The rest of a process that ran out of memory is not trusted.
            self._lost(handle, str(cause), client)
            return None
        if not isinstance(cause, ClientError) or client not in self._open.tasks:
            raise cause
        is_retried = self._retries.after_error(cause)
        self._open.rebuild(client)
        if is_retried:
            self._open.send([client])
            self._watch.add(handle)
            return None
        return cause

    def _repeat(self, client: int) -> None:
        self._open.repeat(client)
        self._watch.add(self._actors.handle_of(client))

    def _replace_hanging(self) -> None:
        timeout_s = self._actors.config.runtime.client_timeout_s
        if timeout_s is None:
            return
        for handle in self._watch.handles:
            tasks, rebuilds = self._open.left(handle)
            stalled_s = self._watch.stalled_s(handle, (tasks, rebuilds))
            # A rebuild is one call with all steps of the client.
            patience_s = timeout_s * (1 + self._actors.lineage.num_steps if rebuilds else 1)
            if stalled_s > patience_s:
                self._lost(handle, f"it made no progress for {patience_s:g} s, see runtime.client_timeout_s")

    def _redistribute_slotless(self) -> None:
        timeout_s = self._actors.config.runtime.replace_timeout_s
        for handle in self._watch.handles:
            # Checked for each actor, because the handling of one actor may remove another.
            if handle in self._actors.handles and handle.lacks_slot(timeout_s):
                unanswered = self._open.unanswered(handle)
                self._restart(handle, unanswered, self._actors.redistribute(handle))

    def _lost(self, handle: ActorHandle, reason: str, at_work: int | None = None) -> None:
        """Replaces a lost actor: its clients are rebuilt, and clients without an answer repeat the task.

        Args:
            handle: the lost actor.
            reason: the reason of the loss in a few words.
            at_work: the client that was at work; None if unknown.
        """
        if handle not in self._actors.handles:
            return
        unanswered = self._open.unanswered(handle)
        # Ray notices the death of a node after some seconds. An actor that was started there in the meantime, and never
        # answered, is no further loss.
        if reason != NODE_DIED or handle.has_come_up:
            self._report_loss(handle, reason)
            if at_work is None:
                at_work = self._open.at_work(handle)
            if at_work in unanswered:
                if not self._retries.after_lost_process(at_work, self._open.round, reason):
                    self._open.skip(at_work, ClientError(at_work, self._open.round, self._task.__name__, reason))
                    unanswered.remove(at_work)
            elif at_work is not None:
                self._retries.after_lost_rebuild(at_work, self._open.round, reason)
        self._restart(handle, unanswered, self._actors.replace(handle))

    def _restart(self, handle: ActorHandle, unanswered: Sequence[int], new: Sequence[ActorHandle]) -> None:
        """Rebuilds the clients of a lost actor in the new actors, and sends the task to clients without an answer."""
        self._watch.drop(handle)
        if self._waiting is not None:
            self._waiting.lose(handle)
        if self._task is ClientHost.hold:
            # The held states were lost with the actor, also the states of clients that have answered.
            unanswered = [client for client in handle.clients if client in self._open.sent_to]
        for client in handle.clients:
            self._open.rebuilds.pop(client, None)
            if self._task is not ClientHost.rebuild or client not in unanswered:
                self._open.rebuild(client)
        self._open.send(unanswered)
        for other in dict.fromkeys(new):
            self._watch.add(other)

    def _report_loss(self, handle: ActorHandle, reason: str) -> None:
        clients = f"client{'s' if len(handle.clients) > 1 else ''} {', '.join(map(str, handle.clients))}"
        self._actors.incidents.add("processes_lost", f"the process of {clients} was lost ({reason}); rebuilding")

    def _report_damage(self, damaged: Sequence[str]) -> None:
        for text in damaged:
            self._actors.incidents.add("checkpoints_damaged", text)
