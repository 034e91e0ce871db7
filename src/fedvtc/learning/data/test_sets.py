"""Other test sets for the models of a run: its test images changed, or the test images of another data set.

Shapes: N images, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data.datasets import Dataset, ImageArrays, load_dataset
from fedvtc.learning.data.generated import to_pixels
from fedvtc.learning.data.module import moved, to_input, to_tensor
from fedvtc.learning.seeding import SERVER, numpy_generator

CHANGES = {
    "rotated": "degrees, counter-clockwise",
    "shifted": "pixels, to the right and down",
    "noise": "standard deviation of Gaussian noise, where white is 1",
}
"""Kinds of changed test images, with the meaning of their number."""
SOURCES = {"npz": "file with x_test and y_test", "folder": "folder with test/CLASS/", "data": "name of a data set"}
"""Kinds of other data sets, with the meaning of their text."""


def test_set(text: str, dataset: Dataset, config: DataConfig, seed: int) -> ImageArrays:
    """Returns the test set that a text names.

    Args:
        text: `KIND:VALUE`, of `CHANGES` with a number or of `SOURCES` with a text.
        dataset: the run's data set.
        config: the run's section `data`; another data set is read in the same way.
        seed: keys the noise.

    Raises:
        DataError: the kind is unknown, the value does not fit, or the other data set cannot be read or has other
            classes or channels.
    """
    kind, _, value = text.partition(":")
    if kind in SOURCES and value:
        return _other(text, kind, value, dataset, config)
    if kind not in CHANGES:
        known = ", ".join([f"{name}:NUMBER" for name in CHANGES] + [f"{name}:TEXT" for name in SOURCES])
        raise DataError(f"--on {text}: is no test set. Choose one of {known}.")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (kind == "noise" and number < 0):
        raise DataError(f"--on {text}: needs a number: {CHANGES[kind]}. Write, for example, {kind}:{_EXAMPLES[kind]}.")
    changed = _CHANGED[kind](dataset.test.images_NCHW, number, seed)
    return ImageArrays(changed, dataset.test.labels_N)


def _rotated(images_NCHW: NDArray[np.uint8], degrees: float, seed: int) -> NDArray[np.uint8]:
    # The grid maps the pixels of the result to those of the image, so an image turns the other way.
    angle = math.radians(degrees)
    turn = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    return _moved(images_NCHW, turn)


def _shifted(images_NCHW: NDArray[np.uint8], pixels: float, seed: int) -> NDArray[np.uint8]:
    # Coordinates run from -1 to 1.
    step = 2 * pixels / images_NCHW.shape[2]
    return _moved(images_NCHW, [[1.0, 0.0, -step], [0.0, 1.0, -step]])


def _noised(images_NCHW: NDArray[np.uint8], deviation: float, seed: int) -> NDArray[np.uint8]:
    rng = numpy_generator(seed, round=0, client=SERVER, purpose="evaluate/noise")
    noise_NCHW = rng.standard_normal(images_NCHW.shape, dtype=np.float32) * np.float32(255 * deviation)
    return np.rint(images_NCHW + noise_NCHW).clip(0, 255).astype(np.uint8)


_CHANGED: dict[str, Callable[[NDArray[np.uint8], float, int], NDArray[np.uint8]]] = {
    "rotated": _rotated,
    "shifted": _shifted,
    "noise": _noised,
}
_EXAMPLES = {"rotated": "15", "shifted": "2", "noise": "0.1"}
_CHUNK = 1000


def _moved(images_NCHW: NDArray[np.uint8], theta: list[list[float]]) -> NDArray[np.uint8]:
    theta_23 = torch.tensor(theta)
    parts = []
    for start in range(0, len(images_NCHW), _CHUNK):
        images = to_input(to_tensor(images_NCHW[start : start + _CHUNK]))
        parts.append(to_pixels(moved(images, theta_23.expand(len(images), 2, 3))))
    return np.concatenate(parts)


def _other(text: str, kind: str, value: str, dataset: Dataset, config: DataConfig) -> ImageArrays:
    name, path = (value, None) if kind == "data" else (kind, value)
    try:
        other = load_dataset(replace(config, name=name, path=path, image_size=dataset.image_size))
    except DataError as error:
        raise DataError(f"--on {text}: {error}") from None
    if other.num_channels != dataset.num_channels:
        what = f"has {other.num_channels} channels, the images of the run have {dataset.num_channels}"
        raise DataError(f"--on {text}: {what}. Convert the images.")
    unknown = [name for name in other.class_names if name not in dataset.class_names]
    if unknown:
        what = f"has the class {unknown[0]!r}, which the run does not have"
        raise DataError(f"--on {text}: {what}. Give its classes the names {', '.join(dataset.class_names)}.")
    place_C = np.array([dataset.class_names.index(name) for name in other.class_names])
    return ImageArrays(other.test.images_NCHW, place_C[other.test.labels_N])
