"""Refuses a data set that is surely not as the user means it, before anything is computed from the data set.

Shapes: N images, C classes.
"""

import numpy as np

from fedvtc.errors import DataError
from fedvtc.learning.data.readers import Loaded

SCALES_DIFFER = 8
"""Ratio of the largest pixels of training and test images above which the images have different scales."""


def check_loaded(where: str, loaded: Loaded, image_size: int | None) -> None:
    """Checks counts, labels, classes, channels and sizes of a data set.

    Args:
        where: the config key of the data set with its value, for the error.
        loaded: images and labels as read from the files.
        image_size: `data.image_size`.

    Raises:
        DataError: one line on the first fault.
    """
    _check_labels(where, loaded)
    _check_classes(where, loaded)
    train_NCHW, test_NCHW = loaded.train[0], loaded.test[0]
    if train_NCHW.shape[1] != test_NCHW.shape[1]:
        raise DataError(f"{where}: training and test images differ in channels. Convert one of them.")
    sizes = {images_NCHW.shape[2:] for images_NCHW in (train_NCHW, test_NCHW)}
    if image_size is None and (len(sizes) > 1 or any(height != width for height, width in sizes)):
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        fix = "Set data.image_size to resize all images."
        raise DataError(f"data.image_size: images of {listed} are not square and of one size. {fix}")
    if train_NCHW.min() == train_NCHW.max():
        what = f"all pixels of the training images are {train_NCHW.min()} of 255"
        raise DataError(f"{where}: {what}. Save the images again, with their pixels.")
    largest = [int(images_NCHW.max()) for images_NCHW in (train_NCHW, test_NCHW)]
    if max(largest) > SCALES_DIFFER * min(largest):
        what = f"the largest training pixel is {largest[0]} of 255, the largest test pixel {largest[1]}"
        raise DataError(f"{where}: {what}. Bring training and test images to one scale.")


def _check_labels(where: str, loaded: Loaded) -> None:
    num_classes = len(loaded.class_names)
    if num_classes < 2:
        what = f"has one class only, {loaded.class_names[0]}" if num_classes else "has no class"
        fix = "Store the labels of two classes or more; class folders lie right below train/ and test/."
        raise DataError(f"{where}: {what}. {fix}")
    for split, (images_NCHW, labels_N) in (("training", loaded.train), ("test", loaded.test)):
        counts = f"{len(images_NCHW)} {split} images and {len(labels_N)} labels"
        if not images_NCHW.size or len(images_NCHW) != len(labels_N):
            raise DataError(f"{where}: has {counts}. Provide one label per image, and at least one image.")
        if labels_N.min() < 0 or labels_N.max() >= num_classes:
            raise DataError(
                f"{where}: {split} labels run from {labels_N.min()} to {labels_N.max()}."
                f" Number the {num_classes} classes 0 to {num_classes - 1}."
            )


def _check_classes(where: str, loaded: Loaded) -> None:
    """Refuses classes with test images and without training images, which no client could ever learn."""
    train_C, test_C = (
        np.bincount(labels_N, minlength=len(loaded.class_names)) for _, labels_N in (loaded.train, loaded.test)
    )
    untrained = np.flatnonzero((train_C == 0) & (test_C > 0))
    if len(untrained):
        name, count = loaded.class_names[untrained[0]], test_C[untrained[0]]
        more = f", and {len(untrained) - 1} more such classes" * (len(untrained) > 1)
        what = f"class {name} has test images ({count}) and no training image{more}"
        raise DataError(f"{where}: {what}. Add training images, or leave the test images out.")
