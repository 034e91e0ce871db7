"""The number of clients that take part in a round."""

import math


def round_half_up(value: float) -> int:
    """Rounds to a whole number, .5 up. Python's `round` takes the even neighbour: 2 clients for 0.5 x 5."""
    return math.floor(value + 0.5)
