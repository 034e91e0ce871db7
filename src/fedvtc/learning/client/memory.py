"""Arrays and numbers that a method keeps on a client from round to round."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedvtc.learning.data.module import to_tensor

Value = npt.NDArray[Any] | bool | int | float


class Memory(MutableMapping[str, Value]):
    """A mapping of names to NumPy arrays and numbers; part of the client's checkpoint.

    A stored array is a copy, which may be changed in place.
    """

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __setitem__(self, name: str, value: Value) -> None:
        """Stores an array or a number.

        Raises:
            TypeError: the name is not a string, or a checkpoint cannot hold the value.
        """
        if not isinstance(name, str):
            raise TypeError(f"client.memory[{name!r}]: a name must be a string.")
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray) and _fits_a_checkpoint(value.dtype):
            # In the order of a restored array, because the bits of sums depend on the order in memory.
            self._values[name] = np.array(value, order="C")
        elif type(value) in (bool, int, float):
            self._values[name] = value
        else:
            kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(
                f"client.memory[{name!r}]: a checkpoint cannot hold {kind}. Store a number or an array of numbers."
            )

    def setdefault(self, name: str, default: Value) -> Value:
        """Returns the value of a name, after storing the default if there is none."""
        if name not in self._values:
            self[name] = default
        # Not the default itself, which was copied.
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def state_dict(self) -> dict[str, torch.Tensor | bool | int | float]:
        """Returns copies of all values, arrays as tensors."""
        return {
            name: to_tensor(value) if isinstance(value, np.ndarray) else value for name, value in self._values.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces all values by the values of a `state_dict`."""
        self._values = {
            name: value.numpy().copy() if isinstance(value, torch.Tensor) else value for name, value in state.items()
        }


def _fits_a_checkpoint(dtype: np.dtype[Any]) -> bool:
    try:
        torch.from_numpy(np.empty(0, dtype))
    except TypeError:
        return False
    return True
