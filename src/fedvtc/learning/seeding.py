"""Keys all random draws of a federation by their purpose, not by their order.

A key is (seed, round, client, purpose). Draws with the same key give the same numbers on any actor, node and attempt
and in any order of calls. So results depend on none of these, and no generator state is saved.
"""

import hashlib
from typing import Literal

import numpy as np

from fedvtc.config.participation import round_half_up

SERVER = -1
"""Client number in the keys of the coordinator's draws."""


def derive_seed(seed: int, *, round: int, client: int, purpose: str) -> int:
    """Hashes a key to a 63-bit seed by SHA-256, so that neighbouring keys give unrelated streams."""
    key = f"{seed}/{round}/{client}/{purpose}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *, round: int, client: int, purpose: str) -> np.random.Generator:
    """Returns a NumPy generator for one key."""
    return np.random.default_rng(derive_seed(seed, round=round, client=client, purpose=purpose))


def choose_participants(seed: int, *, round: int, num_clients: int, participation: float) -> list[int]:
    """Draws the clients of one round uniformly without replacement, at least one; returns them in ascending order."""
    num_chosen = max(1, round_half_up(participation * num_clients))
    return _chosen(seed, round, "participants", num_chosen, num_clients)


def choose_evaluated(seed: int, *, num_clients: int, evaluated: Literal["all"] | int) -> list[int]:
    """Draws the clients of the evaluations of rounds, equal in every round; returns them in ascending order.

    Args:
        seed: the run's seed.
        num_clients: number of all clients.
        evaluated: `all`, or the number of clients to draw; at most all.
    """
    num_chosen = num_clients if evaluated == "all" else evaluated
    return _chosen(seed, 0, "evaluate/clients", num_chosen, num_clients)


def _chosen(seed: int, round: int, purpose: str, num_chosen: int, num_clients: int) -> list[int]:
    if num_chosen >= num_clients:
        return list(range(num_clients))
    rng = numpy_generator(seed, round=round, client=SERVER, purpose=purpose)
    return sorted(int(client) for client in rng.choice(num_clients, size=num_chosen, replace=False))
