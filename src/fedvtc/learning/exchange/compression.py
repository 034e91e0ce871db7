"""Low-rank compression of weight updates by the energy of singular values.

Source: C. Wu et al., "Communication-efficient federated learning via knowledge distillation", Nature Communications
13 (2022), arXiv 2108.13323.
Unlike in the published code, the number of singular values may reach the full rank, a convolution is one matrix of
output channels by all other dimensions, and an array is sent whole where its factors would be larger.
"""

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.exchange.messages import Arrays

_FACTORS = ("left", "scale", "right")


def compress(arrays: Arrays, energy: float) -> dict[str, NDArray[np.generic]]:
    """Replaces each array of two or more dimensions by the factors of its matrix, where these are smaller.

    Args:
        arrays: weights, or differences of weights.
        energy: least share of the sum of squared singular values that the factors keep, in (0, 1].
    """
    compressed: dict[str, NDArray[np.generic]] = {}
    for name, array in arrays.items():
        factors = _factors(array, energy) if array.ndim >= 2 and np.issubdtype(array.dtype, np.floating) else None
        if factors is None:
            compressed[name] = array
        else:
            compressed |= {f"{name}/{part}": factor for part, factor in zip(_FACTORS, factors, strict=True)}
    return compressed


def decompress(compressed: Arrays, like: Arrays) -> dict[str, NDArray[np.generic]]:
    """Restores arrays from the result of `compress`.

    Args:
        compressed: whole arrays and factors.
        like: arrays with the names, shapes and types of the result.
    """
    return {name: _restored(compressed, name, array) for name, array in like.items()}


def rank_of_energy(singular_values: NDArray[np.floating], energy: float) -> int:
    """Returns the fewest r with sum_{i <= r} s_i^2 >= energy * sum_i s_i^2, of values in descending order."""
    sums = np.cumsum(np.square(singular_values, dtype=np.float64))
    return min(int(np.searchsorted(sums, energy * sums[-1])) + 1, len(sums))


def _factors(array: NDArray[np.generic], energy: float) -> tuple[NDArray[np.generic], ...] | None:
    matrix = array.reshape(len(array), -1).astype(np.float64)
    left, scale, right = np.linalg.svd(matrix, full_matrices=False)
    rank = rank_of_energy(scale, energy)
    if rank * (sum(matrix.shape) + 1) >= matrix.size:
        return None
    return tuple(np.ascontiguousarray(part, dtype=array.dtype) for part in (left[:, :rank], scale[:rank], right[:rank]))


def _restored(compressed: Arrays, name: str, like: NDArray[np.generic]) -> NDArray[np.generic]:
    if name in compressed:
        return compressed[name]
    left, scale, right = (np.asarray(compressed[f"{name}/{part}"], dtype=np.float64) for part in _FACTORS)
    return ((left * scale) @ right).astype(like.dtype).reshape(like.shape)
