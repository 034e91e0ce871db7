"""Spreads clients over actors: arithmetic only, no Ray.

Shape suffix: K clients. An actor is an index into a list.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

WORTH_MOVING = 0.03
"""Least share by which the load of the busiest actor must shrink for clients to move."""
NEWEST_SHARE = 0.5
"""Weight of a client's newest seconds in the expected seconds of its next round."""


def balance(costs_K: Sequence[float], num_actors: int, most_per_actor: int) -> list[list[int]]:
    """Deals clients to actors, the costliest client first, each to the actor with the least load so far.

    Args:
        costs_K: cost of a round for each client, in any unit.
        num_actors: number of actors.
        most_per_actor: most clients of one actor; `num_actors` times `most_per_actor` must be at least K.

    Returns:
        The clients of each actor, ascending, without actors that got no client.
    """
    actors: list[list[int]] = [[] for _ in range(num_actors)]
    loads = [(0.0, actor) for actor in range(num_actors)]
    for client in sorted(range(len(costs_K)), key=lambda client: (-costs_K[client], client)):
        load, actor = heapq.heappop(loads)
        actors[actor].append(client)
        if len(actors[actor]) < most_per_actor:
            heapq.heappush(loads, (load + costs_K[client], actor))
    return [sorted(clients) for clients in actors if clients]


def loads_of(costs: Mapping[int, float], actors: Sequence[Collection[int]]) -> list[float]:
    """Returns the load of each actor: the sum of the costs of its clients."""
    return [sum(costs[client] for client in clients) for clients in actors]


class Moves(NamedTuple):
    """Waiting clients that change their actor.

    Attributes:
        actor_of: the new actor of each client that moves.
        gain: cost by which the moves shorten the work of the busiest actor that clients wait for.
    """

    actor_of: dict[int, int]
    gain: float


def moves(
    costs: Mapping[int, float],
    actors: Sequence[Collection[int]],
    busy: Sequence[float],
    rooms: Sequence[float],
) -> Moves:
    """Returns moves of waiting clients that shrink the largest load by more than `WORTH_MOVING`, or none.

    The load of an actor is the cost of the clients that it works on and of those that wait for it. Only actors that
    clients wait for count, because the load of the others cannot shrink. Each step moves one client from the busiest
    actor to the least busy one: the client that leaves the larger of the two loads smallest. The steps end once no deal
    of the clients could shrink the load by such a share again.

    Args:
        costs: cost of the round for each waiting client, above 0, in any unit.
        actors: the clients that wait for each actor.
        busy: cost of the clients that each actor works on.
        rooms: number of clients that each actor may still take.

    Returns:
        The moves; none if the steps do not shrink the load enough.
    """
    after, rooms = [set(clients) for clients in actors], list(rooms)
    loads = [base + load for base, load in zip(busy, loads_of(costs, actors), strict=True)]
    before = _largest(loads, after)
    lower_bound = max(_level(busy, sum(costs.values())), min(busy) + max(costs.values(), default=0.0))
    new_actor_of: dict[int, int] = {}
    for _ in range(sum(map(len, after))):
        busiest = max((actor for actor, clients in enumerate(after) if clients), key=lambda actor: loads[actor])
        if loads[busiest] * (1 - WORTH_MOVING) <= lower_bound:
            break
        open_actors = [actor for actor, room in enumerate(rooms) if room > 0 and actor != busiest]
        if not open_actors:
            break
        idlest = min(open_actors, key=lambda actor: loads[actor])
        larger_load = {
            client: max(loads[busiest] - costs[client], loads[idlest] + costs[client])
            for client in sorted(after[busiest])
        }
        client = min(larger_load, key=lambda client: larger_load[client])
        if larger_load[client] >= loads[busiest]:
            break
        for actor, change in ((busiest, -1), (idlest, 1)):
            loads[actor] += change * costs[client]
            rooms[actor] -= change
        after[busiest].remove(client)
        after[idlest].add(client)
        new_actor_of[client] = idlest
    gain = before - _largest(loads, after)
    if gain <= before * WORTH_MOVING:
        return Moves({}, 0.0)
    return Moves({client: actor for client, actor in new_actor_of.items() if client not in actors[actor]}, gain)


def _largest(loads: Sequence[float], waiting: Sequence[Collection[int]]) -> float:
    """Returns the largest load of an actor that clients wait for; 0 if there is none."""
    return max((load for load, clients in zip(loads, waiting, strict=True) if clients), default=0.0)


def _level(busy: Sequence[float], work: float) -> float:
    """Returns the load of the actors that share further work evenly, the least busy ones first."""
    ordered = sorted(busy)
    for num_sharing in range(1, len(ordered) + 1):
        level = (sum(ordered[:num_sharing]) + work) / num_sharing
        if num_sharing == len(ordered) or level <= ordered[num_sharing]:
            break
    return level


class Workload:
    """Cost of a round for each client: an estimate at first, measured seconds once the client has run a round.

    Args:
        estimates: estimated cost of a round for each client, above 0, in any unit.
        kinds: the kind of each client, such as its backbone; the estimates of a kind are scaled by the seconds of that
            kind, because an operation of one backbone takes up to five times as long as one of another.
    """

    def __init__(self, estimates: Mapping[int, float], kinds: Mapping[int, str]) -> None:
        self._estimates, self._kinds = estimates, kinds
        self._seconds: dict[int, float] = {}
        self._warm: set[int] = set()
        self._predicted_s: float | None = None
        self._taken_s: dict[object, float] = {}

    def expected(self) -> dict[int, float]:
        """Returns the expected cost of each client's next round.

        In seconds, with scaled estimates for clients that were never measured; in the unit of the estimates as long as
        no client was measured.
        """
        measured: dict[str, list[int]] = {}
        for client in self._seconds:
            measured.setdefault(self._kinds[client], []).append(client)
        scales = {kind: self._scale(clients) for kind, clients in measured.items()}
        of_all = self._scale(list(self._seconds))
        return {
            client: self._seconds.get(client, cost * scales.get(self._kinds[client], of_all))
            for client, cost in self._estimates.items()
        }

    def _scale(self, clients: Sequence[int]) -> float:
        """Returns the measured seconds of the clients over their estimates; 1 without clients."""
        estimated = sum(self._estimates[client] for client in clients)
        return sum(self._seconds[client] for client in clients) / estimated if estimated else 1.0

    def begin(self, actors: Sequence[Collection[int]]) -> None:
        """Starts the measurement of a round, given the participating clients of each actor."""
        self._predicted_s = max(loads_of(self.expected(), actors), default=0.0) if self._seconds else None
        self._taken_s = {}

    def done(self, client: int, actor: object, seconds: float) -> None:
        """Records the seconds of a client's round on an actor."""
        self._taken_s[actor] = self._taken_s.get(actor, 0.0) + seconds
        # The first round of a process takes longer than any other, so the second measurement replaces the first.
        before = self._seconds[client] if client in self._warm else seconds
        if client in self._seconds:
            self._warm.add(client)
        self._seconds[client] = NEWEST_SHARE * seconds + (1 - NEWEST_SHARE) * before

    def record(self) -> dict[str, float]:
        """Returns the seconds of the busiest actor in this round, and the seconds that were predicted."""
        record = {"time/makespan": max(self._taken_s.values(), default=0.0)}
        return record if self._predicted_s is None else {**record, "time/makespan/predicted": self._predicted_s}
