"""What crosses the wire between coordinator and clients, and how its bytes are counted.

A payload is kind -> name -> array. The kind (`prototypes`, `covariance`, `generator`, ...) is the unit in which bytes
are reported; arrays are contiguous NumPy arrays on the CPU, because Ray carries these without a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[np.generic]]
Payload = Mapping[str, Arrays]


@dataclass(frozen=True)
class Broadcast:
    """What the server tells every participant of a round.

    Attributes:
        round: the round whose uploads it was made from; 0 before the first round.
        payload: empty where the method shares nothing.
    """

    round: int = 0
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True)
class Upload:
    """What one client tells the server after a round.

    Attributes:
        client: its number.
        round: the round it took part in.
        num_images: the images it trained on, the weight of its contribution.
        payload: what the method shares.
        scalars: named measurements (losses, seconds) for the record of the round; not part of the method's traffic.
    """

    client: int
    round: int
    num_images: int
    payload: Payload = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)


def bytes_by_kind(payload: Payload) -> dict[str, int]:
    """Bytes of the arrays of each kind, as they would be sent: no framing, no compression."""
    return {kind: sum(array.nbytes for array in arrays.values()) for kind, arrays in payload.items()}


def find_non_finite(payload: Payload) -> str | None:
    """The `kind/name` of the first array that holds NaN or infinity, or None."""
    for kind, arrays in payload.items():
        for name, array in arrays.items():
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                return f"{kind}/{name}"
    return None


class WeightedMean:
    """The running weighted mean of arrays that arrive one set at a time; sums are float64, one set is held at most.

    Addition order is the caller's: fed in client order, the result does not depend on who finished first.
    """

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._dtypes: dict[str, np.dtype[np.generic]] = {}
        self._weight = 0.0

    def add(self, arrays: Arrays, weight: float) -> None:
        """Adds one set of arrays.

        Raises:
            ValueError: its names or shapes differ from those of the first set.
        """
        if self._sums and self._sums.keys() != arrays.keys():
            raise ValueError(f"arrays {sorted(arrays)} cannot be averaged with {sorted(self._sums)}")
        for name, array in arrays.items():
            term = np.asarray(array, dtype=np.float64) * weight
            if name not in self._sums:
                self._sums[name], self._dtypes[name] = term, array.dtype
            elif self._sums[name].shape == term.shape:
                self._sums[name] += term
            else:
                raise ValueError(f"{name}: shape {term.shape} cannot be averaged with {self._sums[name].shape}")
        self._weight += weight

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added, or only sets of weight 0."""
        return self._weight == 0.0

    def value(self) -> dict[str, npt.NDArray[np.generic]]:
        """The mean, each array in the type of the first set."""
        return {name: (total / self._weight).astype(self._dtypes[name]) for name, total in self._sums.items()}
