"""The number of clients that take part in a round."""

import math


def round_half_up(value: float) -> int:
    """Rounds .5 up. Python's `round` goes to the even neighbour, which would make 2 of 0.5 x 5 clients."""
    return math.floor(value + 0.5)
