"""Reads and writes the file of a division of the training images: .npz of a run folder, or JSON.

Shapes: N training images.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError, count_of

Indices = NDArray[np.int64]
_REMEDY = "Use the partition.npz of a run folder, or JSON such as [[0, 5, 7], [1, 2]]."


def save_partition(path: str | Path, parts: Sequence[Indices], labels_N: NDArray[Any] | None = None) -> None:
    """Writes a partition as .npz, readable with NumPy alone.

    Client k holds `indices[offsets[k]:offsets[k + 1]]`; `labels`, if given, are the labels of all training images.
    """
    arrays = {
        "indices": np.concatenate(parts).astype(np.int64),
        "offsets": np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64),
    }
    if labels_N is not None:
        arrays["labels"] = np.asarray(labels_N)
    # An open file, because NumPy appends .npz to a name.
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_partition(
    path: str | Path, labels_N: NDArray[Any], num_clients: int, *, may_overlap: bool = False
) -> list[Indices]:
    """Reads a partition file.

    Args:
        path: file written by `save_partition`, or a JSON file with a list of image numbers for each client: a list of
            lists, or an object with a list for each name of a client.
        labels_N: class of each training image; labels in the file must be equal.
        num_clients: clients that the partition must have.
        may_overlap: True for a partition of kind `all`, in which clients hold the same images.

    Raises:
        DataError: the file is absent or damaged, or belongs to other data or another number of clients.
    """
    try:
        # By content, because JSON files have many suffixes.
        with open(path, "rb") as file:
            is_json = file.read(64).lstrip()[:1] in (b"[", b"{")
    except FileNotFoundError:
        # Relative to the working folder, also in the config.yaml of a run folder.
        raise DataError(f"{os.path.abspath(path)}: no such partition file. {_REMEDY}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {_REMEDY}") from None
    indices, offsets, saved_labels_N = _read_json(path) if is_json else _read_npz(path)
    _check_saved(path, indices, offsets)
    if len(offsets) != num_clients + 1:
        held = len(offsets) - 1
        raise DataError(
            f"{path}: holds {count_of(held, 'client')}, not {num_clients}. Set population.num_clients={held}."
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(labels_N)):
        raise DataError(
            f"{path}: holds image indices {indices.min()} to {indices.max()}, but there are {len(labels_N)} training"
            " images. Use the data set of the partition."
        )
    if saved_labels_N is not None and not np.array_equal(saved_labels_N, labels_N):
        raise DataError(f"{path}: belongs to training images with other labels. Use the data set of the partition.")
    if not may_overlap and len(np.unique(indices)) != len(indices):
        raise DataError(f"{path}: gives an image to more than one client. List each image index once.")
    return [np.sort(part) for part in np.split(indices.astype(np.int64), offsets[1:-1])]


def read_partition(path: str | Path) -> tuple[list[Indices], NDArray[np.int64]]:
    """Reads the partition of a run folder without the data set.

    Returns:
        The image indices of each client, and the class of each training image.

    Raises:
        DataError: the file is absent, damaged, or without labels.
    """
    indices, offsets, labels_N = _read_npz(path)
    _check_saved(path, indices, offsets)
    problem = f"{path}: is damaged: its indices and labels do not fit together. {_REMEDY}"
    if labels_N is None or labels_N.ndim != 1 or labels_N.dtype.kind not in "iu":
        raise DataError(problem)
    if labels_N.min(initial=0) < 0 or not ((indices >= 0) & (indices < len(labels_N))).all():
        raise DataError(problem)
    return np.split(indices.astype(np.int64), offsets[1:-1]), labels_N.astype(np.int64)


def _read_npz(path: str | Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["indices"], arrays["offsets"], arrays.get("labels")
    except Exception as error:  # A flipped bit can make NumPy raise anything.
        reason = "" if "pickle" in str(error) else f" ({error})"
        raise DataError(f"{path}: not a partition file{reason}. {_REMEDY}") from None


def _read_json(path: str | Path) -> tuple[NDArray[Any], NDArray[Any], None]:
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no valid JSON ({error}). {_REMEDY}") from None
    lists = list(content.values()) if isinstance(content, dict) else content
    # bool is an int in Python.
    if not lists or not all(isinstance(part, list) and all(type(number) is int for number in part) for part in lists):
        raise DataError(f"{path}: is not a list of image numbers for each client. {_REMEDY}")
    indices = np.array([number for part in lists for number in part], dtype=np.object_)
    if not all(-(2**63) <= number < 2**63 for number in indices):
        raise DataError(f"{path}: holds a number above 2^63. {_REMEDY}")
    return indices.astype(np.int64), np.cumsum([0, *map(len, lists)]).astype(np.int64), None


def _check_saved(path: str | Path, indices: NDArray[Any], offsets: NDArray[Any]) -> None:
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (indices, offsets))
    offsets = offsets.astype(np.int64) if whole else offsets
    if not whole or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(indices) or (np.diff(offsets) < 0).any():
        raise DataError(f"{path}: is damaged: its indices and offsets do not fit together. {_REMEDY}")
