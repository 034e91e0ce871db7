"""Messages between the coordinator and the clients, and their bytes.

A payload is kind -> name -> array. Bytes are reported by kind (`prototypes`, `covariance`, `generator`, ...). Arrays
are NumPy arrays on the CPU, because Ray carries these without a copy.
"""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[np.generic]]
Payload = Mapping[str, Arrays]
NUMBER_KINDS = "biufc"
"""Kinds of NumPy types that hold truth values or numbers."""


def _check(payload: Payload, where: str = "payload") -> None:
    """Raises a TypeError for a payload that is no mapping of kind -> name -> array."""
    for kind, arrays in payload.items():
        here = f"{where}[{kind!r}]"
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{here} is of type {type(arrays).__name__}. Give a mapping of names to NumPy arrays.")
        for name, array in arrays.items():
            # A mean of arrays without dimensions is a NumPy scalar.
            if not isinstance(array, np.ndarray | np.generic):
                fix = "Give a NumPy array, such as tensor.cpu().numpy(), or those of weights_of(module)."
                raise TypeError(f"{here}[{name!r}] is of type {type(array).__name__}. {fix}")
            if array.dtype.kind not in NUMBER_KINDS:
                raise TypeError(f"{here}[{name!r}] is an array of {array.dtype.name}. Give an array of numbers.")


def in_c_order(tree: Any) -> Any:
    """Returns nested mappings, lists and tuples with every array in C order; an array in another order is copied.

    Ray and checkpoints can return such arrays only, and the bits of sums depend on the order in memory.
    """
    if isinstance(tree, Mapping):
        return {key: in_c_order(part) for key, part in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(map(in_c_order, tree))
    return tree.copy(order="C") if isinstance(tree, np.ndarray) and not tree.flags.c_contiguous else tree


def check_scalars(scalars: Mapping[str, float], where: str) -> None:
    """Raises a TypeError for measurements that are no numbers, or that have the name of another part of a record."""
    for name, value in scalars.items():
        if name in ("round", "phase"):
            raise TypeError(f"{where}[{name!r}]: every record has a value of this name. Choose another name.")
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{where}[{name!r}] is of type {type(value).__name__}. Give a number, such as tensor.item()."
            )


@dataclass(frozen=True)
class Broadcast:
    """The server's message to every participant of a round.

    Attributes:
        round: round whose uploads the server merged into the message; 0 before the first round. The coordinator sets
            the round of a message that `server_round` returns.
        payload: values that the method shares; empty if there are none. Arrays are kept in C order.
        groups: values for the clients of one architecture, by the name of their backbone. A client sees the kinds of
            its own group in `payload`; bytes count for receivers only.
    """

    round: int = 0
    payload: Payload = field(default_factory=dict)
    groups: Mapping[str, Payload] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises a TypeError if a payload holds something else than arrays."""
        _check(self.payload)
        for backbone, payload in self.groups.items():
            _check(payload, f"groups[{backbone!r}]")
        object.__setattr__(self, "payload", in_c_order(self.payload))
        object.__setattr__(self, "groups", in_c_order(self.groups))

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays, with those of every group."""
        return sum(sum(bytes_by_kind(payload).values()) for payload in (self.payload, *self.groups.values()))

    def seen_by(self, backbone: str) -> "Broadcast":
        """Returns the message that a client of an architecture receives: the payload and that of its group."""
        return Broadcast(self.round, {**self.payload, **self.groups.get(backbone, {})}) if self.groups else self


@dataclass(frozen=True)
class Upload:
    """One client's message to the server after a round.

    Attributes:
        client: number of the client.
        round: round in which the client took part.
        num_images: training images of the client; the weight of the upload in means.
        payload: values that the method shares; empty if there are none. Arrays are kept in C order.
        scalars: named measurements (losses, seconds) for the record of the round; bytes of scalars are not counted.
        backbone: name of the client's backbone, by which a server may group clients.
    """

    client: int
    round: int
    num_images: int
    payload: Payload = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    backbone: str = ""

    def __post_init__(self) -> None:
        """Raises a TypeError if the payload holds something else than arrays, or a measurement is no number."""
        _check(self.payload)
        check_scalars(self.scalars, "scalars")
        object.__setattr__(self, "payload", in_c_order(self.payload))


def bytes_by_kind(payload: Payload) -> dict[str, int]:
    """Counts the bytes of the arrays of each kind, without framing or compression."""
    return {kind: sum(array.nbytes for array in arrays.values()) for kind, arrays in payload.items()}


def find_non_finite(payload: Payload) -> str | None:
    """Returns `kind/name` of the first array with NaN or infinity, or None."""
    for kind, arrays in payload.items():
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return f"{kind}/{name}"
    return None


class WeightedMean:
    """A running weighted mean of sets of arrays, with float64 sums; keeps no set in memory.

    Sets are added in the caller's order. Added in client order, the result does not depend on the order of arrival.
    """

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._dtypes: dict[str, np.dtype[np.generic]] = {}
        self._weight = 0.0

    def add(self, arrays: Arrays, weight: float) -> None:
        """Adds one set of arrays.

        Raises:
            ValueError: names or shapes differ from those of the first set.
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
        """True if the sum of weights is 0."""
        return self._weight == 0.0

    def value(self) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the mean, each array in the type of the first set."""
        return {name: (total / self._weight).astype(self._dtypes[name]) for name, total in self._sums.items()}
