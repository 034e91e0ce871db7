"""Which client lives in which actor: arithmetic only, no Ray.

Shape suffix: K clients. A host is an actor, by its place in a list.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence

WORTH_MOVING = 0.2
"""Share by which the longest host of a round has to get shorter for clients to move."""
NEWEST_SHARE = 0.5
"""Weight of the newest seconds of a client in what its next round is expected to take."""


def balance(costs_K: Sequence[float], num_hosts: int, most_per_host: int) -> list[list[int]]:
    """Deals clients to hosts, the costliest first and each to the host with the least to do so far.

    Args:
        costs_K: what a round costs each client, in any unit.
        num_hosts: hosts to fill.
        most_per_host: clients that one host may take; `num_hosts` times this must be enough for all.

    Returns:
        The clients of each host, ascending; hosts that got none are left out.
    """
    hosts: list[list[int]] = [[] for _ in range(num_hosts)]
    loads = [(0.0, host) for host in range(num_hosts)]
    for client in sorted(range(len(costs_K)), key=lambda client: (-costs_K[client], client)):
        load, host = heapq.heappop(loads)
        hosts[host].append(client)
        if len(hosts[host]) < most_per_host:
            heapq.heappush(loads, (load + costs_K[client], host))
    return [sorted(clients) for clients in hosts if clients]


def loads_of(costs: Mapping[int, float], hosts: Sequence[Collection[int]]) -> list[float]:
    """What each host has to do."""
    return [sum(costs[client] for client in clients) for clients in hosts]


def moves(costs: Mapping[int, float], hosts: Sequence[Collection[int]], most_per_host: int) -> dict[int, int]:
    """The moves that make the longest host shorter by more than `WORTH_MOVING`, or none.

    Each step takes that client from the longest host to the shortest which leaves the longer of the two shortest. Steps
    end where no deal, however good, could be shorter by so much again.

    Args:
        costs: what a round costs each client, in any unit.
        hosts: the clients of each; empty ones are there to be used.
        most_per_host: clients that one host may have.

    Returns:
        The new host of each client that moves; empty where no number of such steps gets there.
    """
    places = [set(clients) for clients in hosts]
    loads = loads_of(costs, hosts)
    before, shortest_of_all = max(loads), max(sum(loads) / len(loads), max(costs.values(), default=0.0))
    made: dict[int, int] = {}
    for _ in range(sum(map(len, places))):
        longest = max(range(len(places)), key=lambda host: loads[host])
        if loads[longest] * (1 - WORTH_MOVING) <= shortest_of_all:
            break
        free = [host for host, clients in enumerate(places) if len(clients) < most_per_host and host != longest]
        if not free:
            break
        shortest = min(free, key=lambda host: loads[host])
        left = {
            client: max(loads[longest] - costs[client], loads[shortest] + costs[client])
            for client in sorted(places[longest])
        }
        client = min(left, key=lambda client: left[client])
        if left[client] >= loads[longest]:
            break
        for host, change in ((longest, -costs[client]), (shortest, costs[client])):
            loads[host] += change
        places[longest].remove(client)
        places[shortest].add(client)
        made[client] = shortest
    if max(loads) >= before * (1 - WORTH_MOVING):
        return {}
    return {client: host for client, host in made.items() if client not in hosts[host]}


class Workload:
    """What a round costs each client: a guess at first, and the seconds that it took once it has been seen.

    Args:
        guesses: what a round may cost each client, in any unit, above 0.
    """

    def __init__(self, guesses: Mapping[int, float]) -> None:
        self._guesses = guesses
        self._seconds: dict[int, float] = {}
        self._warm: set[int] = set()
        self._predicted_s: float | None = None
        self._taken_s: dict[object, float] = {}

    def expected(self) -> dict[int, float]:
        """Cost of the next round of every client: in seconds, once one has been seen; in units of the guess before."""
        guessed = sum(self._guesses[client] for client in self._seconds)
        scale = sum(self._seconds.values()) / guessed if guessed else 1.0
        return {client: self._seconds.get(client, guess * scale) for client, guess in self._guesses.items()}

    def begin(self, hosts: Sequence[Collection[int]]) -> None:
        """A round begins, with these clients of each host taking part."""
        self._predicted_s = max(loads_of(self.expected(), hosts), default=0.0) if self._seconds else None
        self._taken_s = {}

    def done(self, client: int, host: object, seconds: float) -> None:
        """A client took so long, on this host."""
        self._taken_s[host] = self._taken_s.get(host, 0.0) + seconds
        # Until the second time: the first round of a process takes longer than any other.
        before = self._seconds[client] if client in self._warm else seconds
        if client in self._seconds:
            self._warm.add(client)
        self._seconds[client] = NEWEST_SHARE * seconds + (1 - NEWEST_SHARE) * before

    @property
    def is_known(self) -> bool:
        """Whether some client has been seen more than once, so that clients may move for what it took."""
        return bool(self._warm)

    def record(self) -> dict[str, float]:
        """The longest sum of client seconds of any host in this round, and what it was expected to be."""
        record = {"time/makespan": max(self._taken_s.values(), default=0.0)}
        return record if self._predicted_s is None else {**record, "time/makespan/predicted": self._predicted_s}
