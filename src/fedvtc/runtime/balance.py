"""Which client lives in which actor: arithmetic only, no Ray.

Shape suffix: K clients. A host is an actor by its place in a list.
"""

import heapq
from collections.abc import Sequence


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
