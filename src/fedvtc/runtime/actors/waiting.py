"""The participants of a round that no actor has got yet.

The problem
    A round ends with its last actor. Expected seconds are wrong by a tenth and more: processors slow down for a while,
    nodes differ, and clients that have never worked were never measured. So actors that get all of their clients before
    the round end at different times.

The solution
    Each actor gets half of the clients that wait for it, by their cost, then half of the rest whenever it has little
    left to do. An actor that no client waits for takes over clients that wait for a busier actor. Their states are
    handed over while the busier actor works. The moves that are known before the round are of the same kind: a client
    moves once it is its turn.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

import ray

from fedvtc.runtime.actors.handle import ActorHandle
from fedvtc.runtime.actors.open_calls import Actors, OpenCalls
from fedvtc.runtime.actors.stream import Stream

LOOKAHEAD_S = 0.05
"""Expected seconds of work below which an actor gets its next clients: time for the coordinator to react."""


class Waiting:
    """The queues of the actors.

    Args:
        actors: the actors, and the way to deal and to move clients.
        costs: expected cost of the round for each participant, in client order; in seconds once clients were measured.
    """

    def __init__(self, actors: Actors, costs: Mapping[int, float]) -> None:
        self._actors, self._costs = actors, costs
        self._queues: dict[ActorHandle, list[int]] = {}
        self._clients = set(costs)
        self._streams: dict[ActorHandle, list[Stream]] = {}
        for client in costs:
            self._queues.setdefault(actors.handle_of(client), []).append(client)
        self._deal(frozenset())

    def __contains__(self, client: int) -> bool:
        return client in self._clients

    def __bool__(self) -> bool:
        return bool(self._clients)

    @property
    def queues(self) -> Mapping[ActorHandle, Sequence[int]]:
        """The clients that wait for each actor, in the order of their turns."""
        return self._queues

    @property
    def progress(self) -> list[object]:
        """Generators of Ray of which each is ready once an actor has produced a further result."""
        if not self:
            return []
        return [stream.generator for streams in self._streams.values() for stream in streams[:1]]

    def hand_out(self, calls: OpenCalls) -> list[ActorHandle]:
        """Sends waiting clients to each actor that has little left to do; returns these actors."""
        self._pull()
        served = []
        for handle in [*self._actors.handles] if self else []:
            if self._has_little_left(handle) and (clients := self._next(handle, calls)):
                self._send(handle, clients, calls)
                served.append(handle)
        return served

    def lose(self, handle: ActorHandle) -> None:
        """Has the clients that waited for a lost actor wait for the actors where they live now."""
        self._streams.pop(handle, None)
        for client in self._queues.pop(handle, ()):
            self._queues.setdefault(self._actors.handle_of(client), []).append(client)

    def _pull(self) -> None:
        """Reads the results that the actors have produced since the last call."""
        if not (awaited := self.progress):
            return
        ready = set(ray.wait(awaited, num_returns=len(awaited), timeout=0)[0])
        for streams in self._streams.values():
            if streams and streams[0].generator in ready:
                streams[0].pull()
            while streams and not streams[0].left:
                del streams[0]

    def _has_little_left(self, handle: ActorHandle) -> bool:
        left = 0.0
        for stream in self._streams.get(handle, ()):
            for client in reversed(stream.left):
                left += self._costs[client]
                # Not summed up to the end: a call may have thousands of clients.
                if left > LOOKAHEAD_S:
                    return False
        return True

    def _left_cost(self, handle: ActorHandle) -> float:
        return sum(self._costs[client] for stream in self._streams.get(handle, ()) for client in stream.left)

    def _next(self, handle: ActorHandle, calls: OpenCalls) -> Sequence[int]:
        """Takes the first half of the clients that wait for the actor, by their cost, and at least one of them."""
        if not self._queues.get(handle):
            self._deal(calls.rebuilds)
        queue = self._queues.pop(handle, [])
        sums = [*accumulate(self._costs[client] for client in queue)]
        # No other actor could take over the rest.
        is_alone = len(self._actors.handles) == 1
        num = len(queue) if is_alone else max(1, sum(2 * each <= sums[-1] for each in sums))
        if rest := queue[num:]:
            self._queues[handle] = rest
        self._clients.difference_update(queue[:num])
        return queue[:num]

    def _send(self, handle: ActorHandle, clients: Sequence[int], calls: OpenCalls) -> None:
        for client in clients:
            # A client with an open rebuild stays where it is rebuilt.
            if client not in calls.rebuilds and self._actors.handle_of(client) is not handle:
                self._actors.move(client, handle)
        moved = [client for client in clients if client in self._actors.moved]
        own = [client for client in clients if client not in moved]
        calls.send(own)
        for client in moved:
            calls.rebuild(client)
        calls.send(moved)
        streams = dict.fromkeys(calls.tasks[client] for client in clients)
        self._streams.setdefault(handle, []).extend(stream for stream in streams if isinstance(stream, Stream))

    def _deal(self, staying: Collection[int]) -> None:
        """Deals the waiting clients anew, without those that have to stay."""
        waiting = {
            handle: [client for client in queue if client not in staying] for handle, queue in self._queues.items()
        }
        costs = {client: self._costs[client] for queue in waiting.values() for client in queue}
        busy = {handle: self._left_cost(handle) for handle in self._actors.handles}
        for handle, queue in self._queues.items():
            busy[handle] += sum(self._costs[client] for client in queue if client in staying)
        for client, handle in self._actors.deal(waiting, busy, costs).items():
            for queue in self._queues.values():
                if client in queue:
                    queue.remove(client)
            self._queues.setdefault(handle, []).append(client)
