"""How many processes, and which client lives in which: arithmetic only, no Ray.

Shape suffix: K clients.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedvtc.config.schema import PlacementConfig
from fedvtc.errors import ClusterError


@dataclass(frozen=True)
class Packing:
    """How many processes, and how full.

    Attributes:
        num_actors: processes that host clients.
        clients_per_actor: clients in the fullest of them.
        num_slots: actors that would fit at a time.
    """

    num_actors: int
    clients_per_actor: int
    num_slots: int


def pack(placement: PlacementConfig, num_clients: int, *, num_cpus: float, num_gpus: float, where: str) -> Packing:
    """Fits actors into what there is.

    `auto` takes a slot for every client while there are slots, and shares them out evenly beyond that.

    Args:
        placement: what an actor reserves, and how many clients it may host.
        num_clients: clients to place.
        num_cpus: logical CPUs that are free.
        num_gpus: GPUs that are free.
        where: what they belong to, for the error.

    Raises:
        ClusterError: the actors asked for do not fit; says what would.
    """
    supplies = [("CPU", "cpus", placement.cpus_per_actor, num_cpus)]
    if placement.gpus_per_actor:
        supplies.append(("GPU", "gpus", placement.gpus_per_actor, num_gpus))
    # The small term keeps 0.3 / 0.1 from counting as 2.
    num_slots = min(math.floor(supply / need + 1e-9) for _, _, need, supply in supplies)
    per_actor = placement.clients_per_actor
    packs_itself = isinstance(per_actor, str)
    num_wanted = num_clients if isinstance(per_actor, str) else math.ceil(num_clients / per_actor)
    num_actors = max(1, min(num_wanted, num_slots)) if packs_itself else num_wanted
    for unit, key, need, supply in supplies:
        if num_actors * need > supply + 1e-6:
            raise ClusterError(_too_small(num_actors, unit, key, need, supply, packs_itself, where))
    return Packing(num_actors, math.ceil(num_clients / num_actors), num_slots)


def _too_small(num_actors: int, unit: str, key: str, need: float, supply: float, packs_itself: bool, where: str) -> str:
    total = num_actors * need
    actors = f"{num_actors} actor{'s' if num_actors > 1 else ''} x {need:g} {unit}"
    needs = "needs" if num_actors == 1 else "need"
    plural = "" if total == 1 else "s"
    fixes = [] if packs_itself else ["placement.clients_per_actor=auto"]
    share = supply / num_actors
    if unit == "GPU" and supply:  # An actor lies on one GPU, so a share is 1/k.
        share = 1 / math.ceil(num_actors / supply)
    # Ray counts in ten-thousandths.
    fixes.append(f"placement.{key}_per_actor={math.floor(share * 10_000) / 10_000:g}")
    return f"placement: {actors} {needs} {total:g} {unit}{plural}; {where} has {supply:g}. Set {' or '.join(fixes)}."


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
