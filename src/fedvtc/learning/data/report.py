"""The data report: the facts about a data set that `plan`, `run` and run.json show before anything is trained.

Shapes: N images, C classes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.data.datasets import Dataset, ImageArrays
from fedvtc.learning.data.pixels import count_contradictions, count_shared

MEANS_DIFFER = 64
"""Difference of the mean pixels of training and test images above which the report names both."""
_NAMES_SHOWN = 4


@dataclass(frozen=True, eq=False)
class DataReport:
    """The facts about a data set, as the models get it.

    Attributes:
        num_train: training images.
        num_test: test images.
        num_channels: 1 for grey, 3 for RGB.
        image_size: side of the square images, in pixels.
        dtype: type of the pixels in the files.
        least: smallest pixel of the training images, on the scale 0 to 255.
        mean: mean pixel of the training images.
        largest: largest pixel of the training images.
        class_names: names of the classes.
        train_counts_C: training images by class.
        test_counts_C: test images by class.
        num_groups: groups, such as users, that the training images belong to; None if the files name no groups.
        notes: everything odd, passed over, or changed while reading, one phrase each.
        hash: SHA-256 of all images and labels, as 64 hex digits.
    """

    num_train: int
    num_test: int
    num_channels: int
    image_size: int
    dtype: str
    least: int
    mean: float
    largest: int
    class_names: tuple[str, ...]
    train_counts_C: NDArray[np.int64]
    test_counts_C: NDArray[np.int64]
    num_groups: int | None
    notes: tuple[str, ...]
    hash: str

    @classmethod
    def of(cls, dataset: Dataset) -> "DataReport":
        """Computes the report in a tenth of a second for the size of MNIST."""
        train, test = dataset.train, dataset.test
        train_counts_C, test_counts_C = (
            np.bincount(arrays.labels_N, minlength=dataset.num_classes) for arrays in (train, test)
        )
        mean = float(train.images_NCHW.mean())
        odd = _odd(dataset, mean, train_counts_C, test_counts_C)
        return cls(
            num_train=len(train.labels_N),
            num_test=len(test.labels_N),
            num_channels=dataset.num_channels,
            image_size=dataset.image_size,
            dtype=dataset.dtype,
            least=int(train.images_NCHW.min()),
            mean=mean,
            largest=int(train.images_NCHW.max()),
            class_names=dataset.class_names,
            train_counts_C=train_counts_C,
            test_counts_C=test_counts_C,
            num_groups=None if dataset.groups_N is None else len(np.unique(dataset.groups_N)),
            notes=(*dataset.notes, *odd),
            hash=_hash((train, test)),
        )

    @property
    def facts(self) -> str:
        """The facts without the notes, in one line."""
        groups = "" if self.num_groups is None else f" of {self.num_groups:,} groups"
        return (
            f"{self.num_train:,} training images{groups} and {self.num_test:,} test images,"
            f" {len(self.class_names):,} classes, {self.image_size} x {self.image_size}"
            f" {'grey' if self.num_channels == 1 else 'RGB'}, {self.dtype},"
            f" pixels {self.least} to {self.largest}, mean {self.mean:.1f}"
        )

    def line(self) -> str:
        """Returns facts and notes in one line."""
        return f"data: {'; '.join([self.facts, *self.notes])}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the report in plain values for run.json."""
        counts = zip(self.class_names, self.train_counts_C.tolist(), self.test_counts_C.tolist(), strict=True)
        return {
            "hash": self.hash,
            "images": {"train": self.num_train, "test": self.num_test},
            "channels": self.num_channels,
            "side": self.image_size,
            "dtype": self.dtype,
            "pixels": {"least": self.least, "mean": round(self.mean, 3), "largest": self.largest},
            "groups": self.num_groups,
            "classes": {name: {"train": train, "test": test} for name, train, test in counts},
            "notes": list(self.notes),
        }


def _odd(
    dataset: Dataset, train_mean: float, train_counts_C: NDArray[np.int64], test_counts_C: NDArray[np.int64]
) -> Iterator[str]:
    """Yields a phrase for everything that is odd and not surely wrong."""
    num_shared = count_shared(dataset.test.images_NCHW, dataset.train.images_NCHW)
    if num_shared:
        yield f"{num_shared:,} of {len(dataset.test.labels_N):,} test images are training images"
    num_contradictions = count_contradictions(dataset.train.images_NCHW, dataset.train.labels_N)
    if num_contradictions:
        yield f"{num_contradictions:,} training images are equal to an image of another class"
    absent, untested = train_counts_C == 0, (train_counts_C > 0) & (test_counts_C == 0)
    for what, has_fault_C in (("images", absent), ("test images", untested)):
        if has_fault_C.any():
            yield f"no {what} of {_listed([dataset.class_names[label] for label in np.flatnonzero(has_fault_C)])}"
    test_mean = float(dataset.test.images_NCHW.mean())
    if abs(test_mean - train_mean) > MEANS_DIFFER:
        yield f"the mean pixel of the test images is {test_mean:.1f}; one split may be inverted"
    num_train = len(dataset.train.labels_N)
    if dataset.num_classes > max(2, num_train / 2):
        yield f"{dataset.num_classes:,} classes for {num_train:,} training images; labels should not be ids of images"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more classes" * (len(names) > _NAMES_SHOWN)
    return ", ".join(f"class {name}" for name in names[:_NAMES_SHOWN]) + more


def _hash(splits: Sequence[ImageArrays]) -> str:
    digest = hashlib.sha256()
    for arrays in splits:
        digest.update(repr(arrays.images_NCHW.shape).encode())
        digest.update(np.ascontiguousarray(arrays.images_NCHW).data)
        digest.update(np.ascontiguousarray(arrays.labels_N, dtype="<i8").data)
    return digest.hexdigest()
