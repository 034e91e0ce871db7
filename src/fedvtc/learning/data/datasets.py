"""Loads a data set by name, as arrays in memory."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.names import DATASETS
from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import image_files, readers, standard
from fedvtc.learning.data.readers import Arrays, Loaded, numbered


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images and their labels.

    Attributes:
        images_NCHW: uint8 pixels 0 to 255, C 1 (grey) or 3 (RGB), H equal to W.
        labels_N: int64 classes.
    """

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: training images, to be divided among the clients, and the global test set."""

    name: str
    train: ImageArrays
    test: ImageArrays
    num_classes: int
    class_names: tuple[str, ...]

    @property
    def num_channels(self) -> int:
        """Channels of the images: 1 for grey, 3 for RGB."""
        return int(self.train.images_NCHW.shape[1])

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.train.images_NCHW.shape[2])


def load_dataset(config: DataConfig) -> Dataset:
    """Loads a data set with its own split into training and test images.

    Raises:
        DataError: the data set is unknown, absent or damaged, or has images that are not square and no `image_size`.
    """
    if config.name not in _LOADERS:
        near = difflib.get_close_matches(config.name, DATASETS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(DATASETS)}."
        raise DataError(f"data.name: {config.name} is not a data set. {hint}")
    loaded = _LOADERS[config.name](config)
    _check(config, loaded)
    train, test = (_sized(arrays, config.image_size) for arrays in (loaded.train, loaded.test))
    return Dataset(config.name, train, test, len(loaded.class_names), loaded.class_names)


def _check(config: DataConfig, loaded: Loaded) -> None:
    num_classes = len(loaded.class_names)
    # Files of the user are known by their path, standard data sets by their name.
    where = f"data.path={config.path}" if config.path else f"data.name={config.name}"
    for split, (images_NCHW, labels_N) in (("training", loaded.train), ("test", loaded.test)):
        counts = f"{len(images_NCHW)} {split} images and {len(labels_N)} labels"
        if not images_NCHW.size or len(images_NCHW) != len(labels_N):
            raise DataError(f"{where}: has {counts}. Provide one label per image, and at least one image.")
        if labels_N.min() < 0 or labels_N.max() >= num_classes:
            raise DataError(
                f"{where}: {split} labels run from {labels_N.min()} to {labels_N.max()}."
                f" Number the {num_classes} classes 0 to {num_classes - 1}."
            )
    if loaded.train[0].shape[1] != loaded.test[0].shape[1]:
        raise DataError(f"{where}: training and test images differ in channels. Convert one of them.")
    sizes = {arrays[0].shape[2:] for arrays in (loaded.train, loaded.test)}
    if config.image_size is None and (len(sizes) > 1 or any(height != width for height, width in sizes)):
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        fix = "Set data.image_size to resize all images."
        raise DataError(f"data.image_size: images of {listed} are not square and of one size. {fix}")


def _sized(arrays: Arrays, image_size: int | None) -> ImageArrays:
    images_NCHW, labels_N = arrays
    if image_size is not None and images_NCHW.shape[2:] != (image_size, image_size):
        images_NCHW = image_files.resize_images(images_NCHW, image_size)
    # Some readers return transposed views; gathering a batch is faster from contiguous images.
    return ImageArrays(np.ascontiguousarray(images_NCHW), labels_N)


def _load_digits(config: DataConfig) -> Loaded:
    from sklearn.datasets import load_digits

    bundled: Any = load_digits()
    images_NCHW = np.rint(bundled.images[:, None] * (255.0 / 16.0)).astype(np.uint8)
    labels_N = bundled.target.astype(np.int64)
    # scikit-learn has no split. Every third image of each class is a test image, for every seed.
    place_in_class_N = np.empty(len(labels_N), dtype=np.int64)
    for label in range(10):
        of_class = np.flatnonzero(labels_N == label)
        place_in_class_N[of_class] = np.arange(len(of_class))
    held_out = place_in_class_N % 3 == 2
    train = (images_NCHW[~held_out], labels_N[~held_out])
    return Loaded(train, (images_NCHW[held_out], labels_N[held_out]), numbered(10))


def _load_folder(config: DataConfig) -> Loaded:
    folder = _given_path(config, "a folder with train/<class>/ and test/<class>/")
    class_names = image_files.subfolders(folder / "train")
    unknown = sorted(set(image_files.subfolders(folder / "test")) - set(class_names))
    if unknown:
        raise DataError(f"{folder / 'test'}: {unknown[0]} is not a class of train/. Use the class folders of train/.")
    train_paths, train_labels_N = image_files.list_image_folder(folder / "train", class_names)
    test_paths, test_labels_N = image_files.list_image_folder(folder / "test", class_names)
    grey = image_files.are_grey([*train_paths, *test_paths])
    train_images, test_images = (
        image_files.read_image_files(paths, config.image_size, grey=grey) for paths in (train_paths, test_paths)
    )
    return Loaded((train_images, train_labels_N), (test_images, test_labels_N), class_names)


def _load_npz(config: DataConfig) -> Loaded:
    path = _given_path(config, "an .npz file with x_train, y_train, x_test, y_test")
    train, test, class_names = readers.read_npz(path)
    if class_names is None:
        class_names = numbered(max(int(labels_N.max(initial=0)) for _, labels_N in (train, test)) + 1)
    return Loaded(train, test, class_names)


def _given_path(config: DataConfig, kind: str) -> Path:
    if config.path is None:
        raise DataError(f"data.path: data.name={config.name} needs a path. Set data.path to {kind}.")
    return Path(os.path.expanduser(config.path))


_LOADERS: dict[str, Callable[[DataConfig], Loaded]] = {
    "digits": _load_digits,
    **dict.fromkeys(standard.IDX_SOURCES, standard.load_idx),
    "svhn": standard.load_svhn,
    "cifar10": standard.load_cifar,
    "cifar100": standard.load_cifar,
    "tiny-imagenet": standard.load_tiny_imagenet,
    "folder": _load_folder,
    "npz": _load_npz,
}
