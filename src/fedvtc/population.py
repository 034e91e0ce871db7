"""Who takes part: which client has which architecture and which images."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import PopulationConfig

_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True)
class ClientSpec:
    """What makes a client: its number, its architecture and the training images it holds."""

    client: int
    backbone: str
    indices_N: NDArray[np.int64]


def assign_backbones(population: PopulationConfig) -> list[str]:
    """The backbone of each client, in client order.

    The first n clients hold a backbone share x n times, give or take less than one, for every n at once; equal shares
    take turns. Taking the backbone that is furthest behind would not do: with six of them it can fall a whole client
    short. This is the rule of Tijdeman, "The chairman assignment problem" (1980), with k backbones: of those at least
    1 / (2k - 2) behind, the one that will first be 1 - 1 / (2k - 2) behind, the earlier of the list on a tie.
    """
    backbones = population.backbones
    # Fractions, because 0.1 x 3 is not 0.3 in floating point and would decide ties.
    raw_shares = [Fraction(backbone.share).limit_denominator(_MAX_DENOMINATOR) for backbone in backbones]
    shares = [share / sum(raw_shares) for share in raw_shares]
    least_behind = Fraction(1, max(1, 2 * len(backbones) - 2))

    num_dealt = [0] * len(backbones)
    assigned = []
    for num_clients in range(1, population.num_clients + 1):
        behind = [share * num_clients - dealt for share, dealt in zip(shares, num_dealt, strict=True)]
        until_due = [(1 - least_behind - lag) / share for lag, share in zip(behind, shares, strict=True)]
        in_line = [index for index, lag in enumerate(behind) if lag >= least_behind]
        chosen = min(in_line, key=until_due.__getitem__)
        num_dealt[chosen] += 1
        assigned.append(backbones[chosen].name)
    return assigned
