"""One task on many clients in Ray actors, carried through whatever happens to the actors.

An actor that dies, hangs or runs out of memory is replaced at once, while the others work on: its clients are built
again from their lineage, and those whose results had not arrived take the step again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from fedvtc.errors import ClientError, ClientMemoryError
from fedvtc.runtime.actors.errors import NODE_DIED, cause_of, reason_of
from fedvtc.runtime.lineage import CHANGING
from fedvtc.runtime.retries import Verdicts

if TYPE_CHECKING:
    from fedvtc.runtime.actors.handle import Home
    from fedvtc.runtime.actors.pool import RayPool

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
        self._progress: dict[Home, tuple[Set[ObjectRef[Any]], float]] = {}

    def results(self) -> Iterator[Any]:
        """See `Pool.map`."""
        for client in self._clients:
            self._submit(client)
        for home in {self._pool.home_of(client): None for client in self._clients}:
            self._watch(home)
        for client in self._clients:
            yield self._result(client)
        # Clients that take no part in this task, or have answered, may have lost their actor too.
        while left := [*self._rebuilds, *self._pending]:
            self._result(left[0])

    def _submit(self, client: int) -> None:
        home = self._pool.home_of(client)
        # Anew, so that the clients stand in the order in which they were sent.
        self._sent_to.pop(client, None)
        self._sent_to[client] = home
        actor = home.actor
        if self._task == "rebuild":
            self._pending[client] = actor.rebuild.remote(client, self._pool.lineage.history(client))
        else:
            self._pending[client] = actor.run.remote(self._task, client, *self._references)

    def _watch(self, home: Home) -> None:
        """From now on the actor's end is noticed: this call is done after all others, or fails with the actor."""
        self._ends[home.actor.ready.remote()] = home
        self._progress[home] = (frozenset(), time.monotonic())

    def _result(self, client: int) -> Any:
        """Of the client's call, once it is built again where it was lost; None where that is all that is asked."""
        while True:
            self._wait(client)
            home = self._pool.home_of(client)
            try:
                if client in self._rebuilds:
                    self._built(client)
                if client not in self._pending:
                    return None
                result = ray.get(self._pending[client])
            except RayTaskError as error:
                result = self._failed(error, client, home)
                if result is None:
                    continue
            except ObjectLostError:
                # The actor is there, its result is not: it lay on a node that was lost.
                self._once_more(client)
                continue
            except RayError as error:
                # What builds a client again was sent to where it is now.
                if client in self._rebuilds or self._sent_to[client] is home:
                    self._lost(home, reason_of(error))
                else:
                    self._once_more(client)
                continue
            del self._pending[client]
            self._note(client, result)
            return result

    def _note(self, client: int, result: Any) -> None:
        self._note_step(client, result)
        if self._task == "rebuild":
            self._tell_damage(result)

    def _failed(self, error: RayTaskError, client: int, home: Home) -> ClientError | None:
        """None where the step is taken again, else the error of the client that sits out."""
        cause = error.cause
        if isinstance(cause, ClientMemoryError):
            self._lost(home, str(cause), client)
            return None
        if not isinstance(cause, ClientError) or client not in self._pending:
            raise cause_of(error) from error
        again = self._verdicts.try_again(cause)
        self._rebuild(client)
        if again:
            self._submit(client)
            self._watch(home)
            return None
        return cause

    def _wait(self, client: int) -> None:
        """Until what was asked of the client is done; meanwhile lost actors are replaced."""
        while True:
            # Looked up each time, for a lost actor has others take their place.
            asked = [calls[client] for calls in (self._rebuilds, self._pending) if client in calls]
            _, undone = ray.wait(asked, num_returns=len(asked), timeout=0)
            if not undone:
                return
            ready, _ = ray.wait([undone[0], *self._ends], num_returns=1, timeout=TICK_S)
            if undone[0] in ready:
                continue
            for end in self._ends.keys() & ready:
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
        for home in self._watched():
            rebuilds = {self._rebuilds[client] for client in home.clients if client in self._rebuilds}
            calls = [self._pending[client] for client in home.clients if client in self._pending]
            calls += [*rebuilds, home.up]
            _, undone = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
            # What is left, not what is done: results that were taken are done and no longer known here.
            left = frozenset(undone)
            before, since_s = self._progress[home]
            if left != before or not left or home.up in left:
                self._progress[home] = (left, time.monotonic())
                continue
            # One call that builds a client again takes all its steps.
            patience_s = timeout_s * (1 + self._pool.lineage.num_steps if left & rebuilds else 1)
            if time.monotonic() - since_s > patience_s:
                self._lost(home, f"nothing came of it for {patience_s:g} s, see runtime.client_timeout_s")

    def _look_for_homeless(self) -> None:
        timeout_s = self._pool.config.runtime.replace_timeout_s
        for home in self._watched():
            # Those before it may have had a say: an actor whose clients are elsewhere by now is no more.
            if home in self._pool.homes and home.waits_in_vain(timeout_s):
                self._settle(home, self._waiting(home), self._pool.disperse(home))

    def _watched(self) -> list[Home]:
        """The actors whose end is yet to come, each once."""
        return list(dict.fromkeys(self._ends.values()))

    def _lost(self, home: Home, reason: str, at_work: int | None = None) -> None:
        """Replaces an actor and has its clients built again; those that were not done take the step again.

        Args:
            home: of the actor.
            reason: in a few words.
            at_work: the client that it was lost with, where that is known.
        """
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
            unbuilt = [client for client in home.clients if client in self._rebuilds and not self._is_built(client)]
            if at_work is None:
                at_work = next(iter([*waiting, *unbuilt]), None)
            if at_work in waiting:
                if not self._verdicts.try_elsewhere(at_work, self._round, reason):
                    self._pending[at_work] = ray.put(ClientError(at_work, self._round, self._task, reason))
                    waiting.remove(at_work)
            elif at_work is not None:
                self._verdicts.rebuild_elsewhere(at_work, self._round, reason)
        self._settle(home, waiting, self._pool.replace(home))

    def _waiting(self, home: Home) -> list[int]:
        """The clients of an actor that have yet to answer, the one that is at work first."""
        return [
            client
            for client in self._sent_to
            if self._pool.home_of(client) is home and client in self._pending and not self._arrived(client)
        ]

    def _settle(self, home: Home, waiting: Sequence[int], homes: Sequence[Home]) -> None:
        """Has the clients of a lost actor built again where they are now; those that wait take the step there."""
        self._ends = {end: other for end, other in self._ends.items() if other is not home}
        if self._task == "hold":
            # What was held went with the actor, also of those that have answered.
            waiting = [client for client in home.clients if client in self._sent_to]
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
            result = ray.get(reference)
        except RayTaskError as error:
            # Where the client could not be built, its step found none.
            was_there = client not in self._rebuilds or self._is_built(client)
            return was_there and not isinstance(error.cause, ClientMemoryError)
        except RayError:
            return False
        self._note_step(client, result)
        return True

    def _is_built(self, client: int) -> bool:
        """Whether the call that builds the client again is done."""
        reference = self._rebuilds[client]
        if not ray.wait([reference], timeout=0)[0]:
            return False
        try:
            ray.get(reference)
        except RayError:
            return False
        return True

    def _note_step(self, client: int, result: Any) -> None:
        """The client has taken the step, unless it sits it out."""
        if self._step is not None and not isinstance(result, ClientError):
            self._step.clients.add(client)

    def _once_more(self, client: int) -> None:
        if client in self._pending and self._step is not None:
            self._step.clients.discard(client)
        self._rebuild(client)
        if client in self._pending:
            self._submit(client)
        self._watch(self._pool.home_of(client))

    def _rebuild(self, client: int) -> None:
        actor = self._pool.home_of(client).actor
        self._rebuilds[client] = actor.rebuild.remote(client, self._pool.lineage.history(client))

    def _built(self, client: int) -> None:
        """Waits until the client is built again."""
        damaged = ray.get(self._rebuilds[client])
        # In this order: one that could not be built is still to be.
        del self._rebuilds[client]
        self._tell_damage(damaged)

    def _tell_damage(self, damaged: Sequence[str]) -> None:
        for text in damaged:
            self._pool.incidents.add("checkpoints_damaged", text)
