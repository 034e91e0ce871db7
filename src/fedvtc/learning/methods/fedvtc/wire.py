"""Arrays of FedVTC as they are sent: narrower floats, and triangles of matrices that are zero above the diagonal.

Shapes: K classes or Gaussians, D features, T = D (D + 1) / 2 numbers of a triangle.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form
from fedvtc.learning.methods.fedvtc.config import Wire


def sent(payload: Mapping[str, Arrays], wire: Wire) -> dict[str, Arrays]:
    """Returns a payload with the floats of the wire; `exact` returns the arrays unchanged.

    An array `spread` of lower triangular matrices, (K, D, D), becomes an array `triangle`, (K, T).
    """
    if wire == "exact":
        return dict(payload)
    return {kind: _narrowed(arrays, np.dtype(wire)) for kind, arrays in payload.items()}


def received(arrays: Arrays) -> Arrays:
    """Returns the arrays of one kind with `spread` instead of `triangle`."""
    if "triangle" not in arrays:
        return arrays
    triangle_KT = np.asarray(arrays["triangle"], dtype=np.float32)
    # T = D (D + 1) / 2.
    size = (int(np.sqrt(8 * triangle_KT.shape[1] + 1)) - 1) // 2
    spread_KDD = np.zeros((len(triangle_KT), size, size), dtype=np.float32)
    spread_KDD[:, *np.tril_indices(size)] = triangle_KT
    return {**{name: array for name, array in arrays.items() if name != "triangle"}, "spread": spread_KDD}


def sent_statistics(statistics: FeatureStatistics, wire: Wire) -> dict[str, Arrays]:
    """Returns the payload of statistics; a narrow wire has variances, because sums can exceed the range of float16."""
    payload: dict[str, Arrays] = dict(statistics.to_arrays())
    if wire == "exact":
        return payload
    payload["covariance"] = {"variance": statistics.scatter / _num_images(statistics.count_K, statistics.form)}
    return sent(payload, wire)


def received_statistics(payload: Mapping[str, Arrays], form: Form) -> FeatureStatistics:
    """Builds the statistics of a payload that `sent_statistics` returned."""
    prototypes, covariance = payload["prototypes"], payload["covariance"]
    if "variance" in covariance:
        count_K = np.asarray(prototypes["count"], dtype=np.int64)
        variance = np.asarray(covariance["variance"], dtype=np.float64)
        covariance = {"scatter": variance * _num_images(count_K, form)}
    return FeatureStatistics.from_arrays({"prototypes": prototypes, "covariance": covariance}, form)


def read_gaussians(payload: Mapping[str, Arrays]) -> ClassGaussians:
    """Builds the Gaussians of a payload that was sent, or kept, as `ClassGaussians.to_payload` returned it."""
    return ClassGaussians.from_arrays(payload["prototypes"], received(payload["covariance"]))


def sources_payload(clients: Mapping[str, Mapping[str, Arrays]]) -> dict[str, Arrays]:
    """Builds the payload kinds `mixture`, the clients' Gaussians, and `generators`, the clients' generators if sent."""
    if not clients:
        return {}
    order = sorted(clients)
    parts = [read_gaussians(clients[client]) for client in order]
    mixture = ClassGaussians.mixture(parts).to_payload()
    owner_K = np.repeat(np.arange(len(parts)), [len(part.classes_K) for part in parts])
    payload: dict[str, Arrays] = {
        "mixture": {**mixture["prototypes"], **mixture["covariance"], "owner": owner_K},
    }
    if "generator" in clients[order[0]]:
        generators = [clients[client]["generator"] for client in order]
        payload["generators"] = {
            name: np.stack([generator[name] for generator in generators]) for name in generators[0]
        }
    return payload


def _narrowed(arrays: Arrays, dtype: np.dtype[Any]) -> Arrays:
    narrow: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if name == "spread" and array.ndim == 3:
            rows, columns = np.tril_indices(array.shape[1])
            name, array = "triangle", np.ascontiguousarray(array[:, rows, columns])
        narrow[name] = array.astype(dtype, copy=False) if np.issubdtype(array.dtype, np.floating) else array
    return narrow


def _num_images(count_K: NDArray[np.int64], form: Form) -> Any:
    """Returns the images behind each number of a scatter, in a shape that divides the scatter."""
    if form == "class_full":
        return count_K[:, None, None]
    return count_K[:, None] if form == "class_diagonal" else max(int(count_K.sum()), 1)
