"""Numbers the classes of labels as users write them: any whole numbers, or texts.

Shapes: N images, V different labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError

NDInts = NDArray[np.int64]


class Classes(NamedTuple):
    """Labels as classes 0 to C-1, with the names of the classes and a note if the labels were written otherwise."""

    train_N: NDInts
    test_N: NDInts
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def numbered(num_classes: int) -> tuple[str, ...]:
    """Returns numbers as class names, for a data set without names."""
    return tuple(str(label) for label in range(num_classes))


def one_per_image(where: str, labels: NDArray[Any]) -> NDArray[Any]:
    """Returns labels of shape N, from N or N,1: int64, or texts.

    Raises:
        DataError: the labels are neither whole numbers nor texts, or not one per image.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    key = where.rpartition(" ")[2]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels):
        fix = f"Store one class per image: np.argmax({key}, axis=1)."
        raise DataError(f"{where} holds a row of {labels.shape[1]} numbers per image, one-hot. {fix}")
    if labels.ndim == 1 and labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        raise DataError(f"{where} holds {labels.dtype}. Store whole numbers: {key}.astype(int).")
    if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        found = f"{labels.dtype} of the shape {labels.shape}"
        raise DataError(f"{where} holds {found}. Store one whole number or text per image.")
    return as_texts(labels) if labels.dtype.kind in "US" else labels.astype(np.int64)


def as_texts(array: NDArray[Any]) -> NDArray[np.str_]:
    """Returns an array as texts; bytes are UTF-8."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array.astype(np.str_)


def classes_of(path: Path | str, train: NDArray[Any], test: NDArray[Any], names: Sequence[str] | None) -> Classes:
    """Numbers the classes 0 to C-1.

    Labels 0 to C-1 stay as they are; so do labels that do not fit the names, which the check of the data set refuses.
    Any other labels become classes in ascending order, named by `names` or by the labels themselves.

    Args:
        path: the origin of the labels, for the error.
        train: labels of the training images, from `one_per_image`.
        test: labels of the test images, from `one_per_image`.
        names: class names of the file; None if the file has none.

    Raises:
        DataError: some labels are texts, others are numbers or no class names.
    """
    if (train.dtype.kind == "U") != (test.dtype.kind == "U"):
        raise DataError(f"{path}: training labels are {train.dtype}, test labels {test.dtype}. Write both alike.")
    values_V, numbers_N = np.unique(np.concatenate([train, test]), return_inverse=True)
    train_N, test_N = np.split(numbers_N.astype(np.int64), [len(train)])
    if train.dtype.kind == "U":
        if names is None:
            notes = ("labels are texts, and the classes are in alphabetical order",)
            return Classes(train_N, test_N, tuple(values_V.tolist()), notes)
        places = {name: place for place, name in enumerate(names)}
        unknown = [value for value in values_V.tolist() if value not in places]
        if unknown:
            raise DataError(f"{path}: the label {unknown[0]!r} is not in class_names. Add the name, or mend the label.")
        places_V = np.array([places[value] for value in values_V.tolist()], dtype=np.int64)
        return Classes(places_V[train_N], places_V[test_N], tuple(names))
    num_names = len(values_V) if names is None else len(names)
    is_numbered = not len(values_V) or (values_V[0] >= 0 and values_V[-1] < num_names)
    if is_numbered or values_V[0] < 0 or num_names != len(values_V):
        known = numbered(int(np.count_nonzero(values_V >= 0))) if names is None else tuple(names)
        return Classes(train, test, known)
    chosen = tuple(str(value) for value in values_V.tolist()) if names is None else tuple(names)
    how = "named by their labels" if names is None else "named by class_names in this order"
    note = f"labels {_listed(values_V)} are the classes 0 to {num_names - 1}, {how}"
    return Classes(train_N, test_N, chosen, (note,))


def _is_one_hot(labels: NDArray[Any]) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _listed(values_V: NDArray[Any]) -> str:
    texts = [str(value) for value in values_V.tolist()]
    return ", ".join(texts if len(texts) <= 4 else [*texts[:2], "...", texts[-1]])
