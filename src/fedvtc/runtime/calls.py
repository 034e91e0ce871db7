"""One task on many clients in Ray actors, carried through whatever happens to the actors.

An actor that dies, hangs or runs out of memory is replaced at once, while the others work on: its clients are built
again from their lineage, and those whose results had not arrived take the step again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef
from ray.exceptions import RayActorError, RayError, RayTaskError

from fedvtc.errors import ClientError, ClientMemoryError, FedvtcError
from fedvtc.runtime.lineage import CHANGING
from fedvtc.runtime.policy import Verdicts

if TYPE_CHECKING:
    from fedvtc.runtime.home import Home
    from fedvtc.runtime.ray_pool import RayPool

NODE_DIED = "its node died"
TICK_S = 1.0
"""Seconds between looks at actors that may hang."""


class Calls:
    """The calls of one `RayPool.map`.

    Args:
        pool: whose clients are called.
        task: of `ClientHost`; `rebuild` takes its argument from the lineage.
        clients: who is called.
        arguments: for all of them.
    """

    def __init__(self, pool: RayPool, task: str, clients: Sequence[int], arguments: Sequence[Any]) -> None:
        self._pool, self._task, self._clients = pool, task, clients
        self._references = [ray.put(argument) for argument in arguments]
        self._round = arguments[0].round + 1 if task in CHANGING else 0
        self._step = pool.lineage.begin(task, self._round, self._references[0]) if task in CHANGING else None
        self._verdicts = Verdicts(pool.config.runtime, pool.incidents, task)
        self._pending: dict[int, ObjectRef[Any]] = {}
        self._sent_to: dict[int, Home] = {}
        self._rebuilds: dict[int, ObjectRef[Any]] = {}
        self._ends: dict[ObjectRef[Any], Home] = {}
        self._progress: dict[Home, tuple[int, float]] = {}

    def results(self) -> Iterator[Any]:
        """See `Pool.map`."""
        for client in self._clients:
            self._submit(client)
        for home in {self._pool.home_of(client): None for client in self._clients}:
            self._watch(home)
        for client in self._clients:
            yield self._result(client)
        # Clients that take no part in this task may have lost their actor too.
        while self._rebuilds:
            client = next(iter(self._rebuilds))
            self._wait(self._rebuilds, client)
            try:
                self._built(client)
            except RayTaskError as error:
                raise cause_of(error) from error
            except RayActorError as error:
                self._lost(self._pool.home_of(client), reason_of(error))

    def _submit(self, client: int) -> None:
        home = self._sent_to[client] = self._pool.home_of(client)
        actor = home.actor
        if self._task == "rebuild":
            self._pending[client] = actor.rebuild.remote(client, self._pool.lineage.history(client))
        else:
            self._pending[client] = actor.run.remote(self._task, client, *self._references)

    def _watch(self, home: Home) -> None:
        """From now on the actor's end is noticed: this call is done after all others, or fails with the actor."""
        self._ends[home.actor.ready.remote()] = home
        self._progress[home] = (0, time.monotonic())

    def _result(self, client: int) -> Any:
        while True:
            self._wait(self._pending, client)
            home = self._pool.home_of(client)
            try:
                if client in self._rebuilds:
                    self._built(client)
                result = ray.get(self._pending[client])
            except RayTaskError as error:
                result = self._failed(error, client, home)
                if result is None:
                    continue
            except RayActorError as error:
                if self._sent_to[client] is home:
                    self._lost(home, reason_of(error))
                else:
                    self._once_more(client)
                continue
            except RayError:
                # The actor is there, its result is not: it lay on a node that was lost.
                self._once_more(client)
                continue
            del self._pending[client]
            self._note(client, result)
            return result

    def _note(self, client: int, result: Any) -> None:
        if isinstance(result, ClientError):
            return
        if self._step is not None:
            self._step.clients.add(client)
        if self._task == "rebuild":
            self._tell_damage(result)

    def _failed(self, error: RayTaskError, client: int, home: Home) -> ClientError | None:
        """None where the step is taken again, else the error of the client that sits out."""
        cause = error.cause
        if isinstance(cause, ClientMemoryError):
            self._lost(home, str(cause))
            return None
        if not isinstance(cause, ClientError):
            raise cause_of(error) from error
        again = self._verdicts.try_again(cause)
        self._rebuild(client)
        if again:
            self._submit(client)
            self._watch(home)
            return None
        return cause

    def _wait(self, calls: Mapping[int, ObjectRef[Any]], client: int) -> None:
        """Until the client's call is done; meanwhile lost actors are replaced."""
        while True:
            reference = calls[client]
            ready, _ = ray.wait([reference, *self._ends], num_returns=1, timeout=TICK_S)
            if reference in ready:
                return
            for end in ready:
                home = self._ends.pop(end)
                try:
                    ray.get(end)
                except RayError as error:
                    self._lost(home, reason_of(error))
            self._look_for_hanging()
            self._look_for_homeless()

    def _look_for_hanging(self) -> None:
        timeout_s = self._pool.config.runtime.client_timeout_s
        if timeout_s is None:
            return
        for home in list(self._ends.values()):
            rebuilds = [self._rebuilds[client] for client in home.clients if client in self._rebuilds]
            calls = [self._pending[client] for client in home.clients if client in self._pending]
            calls += [*rebuilds, home.up]
            done, _ = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
            num_done, since_s = self._progress[home]
            if len(done) != num_done or home.up not in done:
                self._progress[home] = (len(done), time.monotonic())
                continue
            # One call that builds a client again takes all its steps.
            patience_s = timeout_s * (1 + self._pool.lineage.num_steps if rebuilds else 1)
            if time.monotonic() - since_s > patience_s:
                self._lost(home, f"nothing came of it for {patience_s:g} s, see runtime.client_timeout_s")

    def _look_for_homeless(self) -> None:
        timeout_s = self._pool.config.runtime.replace_timeout_s
        for home in list(self._ends.values()):
            if home.waits_in_vain(timeout_s):
                self._settle(home, self._waiting(home), self._pool.disperse(home))

    def _lost(self, home: Home, reason: str) -> None:
        """Replaces an actor and has its clients built again; those that were not done take the step again."""
        if home not in self._pool.homes:
            return
        waiting = self._waiting(home)
        # Ray notices the end of a node after some seconds; until then a new actor may have been sent to it in vain.
        if reason != NODE_DIED or home.has_come_up:
            names = ", ".join(str(client) for client in home.clients)
            self._pool.incidents.add(
                "processes_lost",
                f"the process of client{'s' * (len(home.clients) > 1)} {names} was lost ({reason}); building anew",
            )
            if waiting and not self._verdicts.try_elsewhere(waiting[0], self._round, reason):
                error = ClientError(waiting[0], self._round, self._task, reason)
                self._pending[waiting.pop(0)] = ray.put(error)
        self._settle(home, waiting, self._pool.replace(home))

    def _waiting(self, home: Home) -> list[int]:
        """The clients of an actor that have yet to answer."""
        return [client for client in home.clients if client in self._pending and not self._arrived(client)]

    def _settle(self, home: Home, waiting: Sequence[int], homes: Sequence[Home]) -> None:
        """Has the clients of a lost actor built again where they are now; those that wait take the step there."""
        self._ends = {end: other for end, other in self._ends.items() if other is not home}
        for client in home.clients:
            self._rebuilds.pop(client, None)
            if self._task != "rebuild" or client not in waiting:
                self._rebuild(client)
        for client in waiting:
            self._submit(client)
        for other in dict.fromkeys(homes):
            self._watch(other)

    def _arrived(self, client: int) -> bool:
        """Whether the client's result outlives its actor."""
        reference = self._pending[client]
        if not ray.wait([reference], timeout=0)[0]:
            return False
        try:
            ray.get(reference)
        except RayTaskError as error:
            return not isinstance(error.cause, ClientMemoryError)
        except RayError:
            return False
        if self._step is not None:
            self._step.clients.add(client)
        return True

    def _once_more(self, client: int) -> None:
        if self._step is not None:
            self._step.clients.discard(client)
        self._rebuild(client)
        self._submit(client)
        self._watch(self._pool.home_of(client))

    def _rebuild(self, client: int) -> None:
        actor = self._pool.home_of(client).actor
        self._rebuilds[client] = actor.rebuild.remote(client, self._pool.lineage.history(client))

    def _built(self, client: int) -> None:
        """Waits until the client is built again."""
        self._tell_damage(ray.get(self._rebuilds.pop(client)))

    def _tell_damage(self, damaged: Sequence[str]) -> None:
        for text in damaged:
            self._pool.incidents.add("checkpoints_damaged", text)


def cause_of(error: RayTaskError) -> Exception:
    """What the actor raised: ours is one line that names the client, Ray's carries the worker's trace in its text."""
    return error.cause if isinstance(error.cause, FedvtcError) else error


def reason_of(error: RayError) -> str:
    """Why an actor was lost, in a few words; Ray says it in a page, and names every other cause there could be.

    Raises:
        RayError: the error itself, where the actor could not be made, for another one could not either.
    """
    text = str(error)
    if "raised in its creation task" in text:
        raise error
    if "NODE_OUT_OF_MEMORY" in text or "running low on memory" in text:
        return "its node ran out of memory"
    return NODE_DIED if "node has died" in text or "node was terminated" in text else "it died"
