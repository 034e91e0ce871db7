"""All randomness of a federation, keyed by what it is for and never by when it is drawn.

A key is (seed, round, client, purpose). Two draws with the same key give the same numbers on any actor, node, attempt
or order of calls, so a result depends on none of them and no generator state needs saving.
"""

import hashlib

import numpy as np

from fedvtc.config.participation import round_half_up

SERVER = -1
"""The client number under which the coordinator draws."""


def derive_seed(seed: int, *, round: int, client: int, purpose: str) -> int:
    """A 63-bit seed for one key, by SHA-256: neighbouring keys give unrelated streams."""
    key = f"{seed}/{round}/{client}/{purpose}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *, round: int, client: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for one key."""
    return np.random.default_rng(derive_seed(seed, round=round, client=client, purpose=purpose))


def choose_participants(seed: int, *, round: int, num_clients: int, participation: float) -> list[int]:
    """The clients of one round, in ascending order: a uniform draw without replacement, at least one client."""
    num_chosen = max(1, round_half_up(participation * num_clients))
    if num_chosen >= num_clients:
        return list(range(num_clients))
    rng = numpy_generator(seed, round=round, client=SERVER, purpose="participants")
    return sorted(int(client) for client in rng.choice(num_clients, size=num_chosen, replace=False))
