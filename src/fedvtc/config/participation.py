"""Number of clients that take part in a round."""

import numpy as np


def round_half_up(value: float) -> int:
    """Rounds .5 up, where Python's round goes to the even neighbour and 0.5 x 5 clients would give 2."""
    return int(np.floor(value + 0.5))
