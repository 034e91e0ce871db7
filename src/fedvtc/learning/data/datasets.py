"""Loads a data set by name, as arrays in memory."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.names import DATASETS
from fedvtc.config.own_code import OwnCodeError
from fedvtc.config.problems import nearest, show
from fedvtc.config.registered import import_path
from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import image_files, image_folders, standard
from fedvtc.learning.data.checks import check_loaded
from fedvtc.learning.data.labels import numbered
from fedvtc.learning.data.npz import read_npz
from fedvtc.learning.data.own_loader import read_own
from fedvtc.learning.data.pixels import refuse_dark
from fedvtc.learning.data.readers import Arrays, Loaded


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images and their labels.

    Attributes:
        images_NCHW: uint8 pixels 0 to 255, C 1 (grey) or 3 (RGB), H equal to W.
        labels_N: int64 classes.
    """

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def at(self, index_M: NDArray[np.int64]) -> "ImageArrays":
        """Returns copies of the images with these indices."""
        return ImageArrays(self.images_NCHW[index_M], self.labels_N[index_M])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: training images, to be divided among the clients, and the global test set.

    Attributes:
        name: name of the data set.
        train: training images of all clients.
        test: test images.
        num_classes: number of classes.
        class_names: names of the classes.
        notes: files and arrays that were passed over, and changes of images and labels while reading.
        dtype: type of the pixels in the files.
        groups_N: number of the group, such as the user, of each training image; None if the files name no groups.
        validation_M: indices of the training images that are validation images of some client, and that no client
            trains on; empty until the images are divided among clients.
    """

    name: str
    train: ImageArrays
    test: ImageArrays
    num_classes: int
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    dtype: str = "uint8"
    groups_N: NDArray[np.int64] | None = None
    validation_M: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

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
        DataError: the data set is unknown, absent or damaged, or surely not as the user means it.
    """
    loaded = _loaded(config)
    # Files of the user are known by their path, standard data sets by their name.
    where = f"data.path={config.path}" if config.path else f"data.name={config.name}"
    check_loaded(where, loaded, config.image_size)
    train, test = (_sized(arrays, config.image_size) for arrays in (loaded.train, loaded.test))
    return Dataset(
        config.name,
        train,
        test,
        len(loaded.class_names),
        loaded.class_names,
        notes=(*loaded.notes, *_notes_on_sizes(loaded, config.image_size)),
        dtype=loaded.dtype,
        groups_N=loaded.groups_N,
    )


def _loaded(config: DataConfig) -> Loaded:
    try:
        path = import_path("data", config.name, DATASETS)
        if path is not None:
            return read_own(path, config)
    except OwnCodeError as error:
        raise DataError(f"data.name: {error.what}. {error.fix}") from None
    if config.name not in _LOADERS:
        near = difflib.get_close_matches(config.name, DATASETS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(DATASETS)}."
        raise DataError(f"data.name: {config.name} is not a data set. {hint}")
    return _LOADERS[config.name](config)


def _sized(arrays: Arrays, image_size: int | None) -> ImageArrays:
    images_NCHW, labels_N = arrays
    if image_size is not None and images_NCHW.shape[2:] != (image_size, image_size):
        images_NCHW = image_files.resize_images(images_NCHW, image_size)
    # Some readers return transposed views; gathering a batch is faster from contiguous images.
    return ImageArrays(np.ascontiguousarray(images_NCHW), labels_N)


def _notes_on_sizes(loaded: Loaded, image_size: int | None) -> list[str]:
    sizes = {arrays[0].shape[2:] for arrays in (loaded.train, loaded.test)}
    listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
    return [f"images are resized from {listed}"] if image_size and sizes != {(image_size, image_size)} else []


def _load_digits(config: DataConfig) -> Loaded:
    # A copy of scikit-learn's file, because the import of scikit-learn takes longer than a small run.
    with np.load(Path(__file__).with_name("digits.npz")) as bundled:
        images_NCHW = np.rint(bundled["images"][:, None] * (255.0 / 16.0)).astype(np.uint8)
        labels_N = bundled["labels"].astype(np.int64)
    # The data set has no split. Every third image of each class is a test image, for every seed.
    place_in_class_N = np.empty(len(labels_N), dtype=np.int64)
    for label in range(10):
        of_class = np.flatnonzero(labels_N == label)
        place_in_class_N[of_class] = np.arange(len(of_class))
    held_out = place_in_class_N % 3 == 2
    train = (images_NCHW[~held_out], labels_N[~held_out])
    return Loaded(train, (images_NCHW[held_out], labels_N[held_out]), numbered(10))


def _load_folder(config: DataConfig) -> Loaded:
    folder = _given_path(config, "a folder with train/<class>/ and test/<class>/")
    # Not Path.is_file, which raises for names that are too long.
    if os.path.isfile(folder):
        fix = "Set data.path to the folder of train/ and test/, or data.name=npz for an .npz file."
        raise DataError(f"{folder}: is a file. {fix}")
    class_names = image_folders.subfolders(folder / "train")
    unknown = image_folders.unknown_class(image_folders.subfolders(folder / "test"), class_names)
    if unknown is not None:
        near = nearest(unknown, class_names)
        fix = f"Did you mean {show(near)}?" if near else "Use the class folders of train/."
        raise DataError(f"{folder / 'test'}: {show(unknown)} is not a class of train/. {fix}")
    train, test = (image_folders.list_image_folder(folder / split, class_names) for split in ("train", "test"))
    image_folders.refuse_empty_classes(folder / "train", class_names, train)
    reader = image_files.ImageReader(config.image_size, config.pixel_max)
    grey = reader.are_grey([*train.paths, *test.paths])
    train_NCHW, test_NCHW = (reader.read(files.paths, grey=grey) for files in (train, test))
    if config.pixel_max is None:
        for split, images_NCHW in (("train", train_NCHW), ("test", test_NCHW)):
            refuse_dark(str(folder / split), int(images_NCHW.max()), 255)
    notes = [f"{count} image file{'s' * (count != 1)} {change}" for change, count in sorted(reader.changes.items())]
    passed_over = [*train.passed_over, *test.passed_over]
    if passed_over:
        notes.append(f"passed over {image_folders.in_words(passed_over)}")
    return Loaded(
        (train_NCHW, train.labels_N),
        (test_NCHW, test.labels_N),
        class_names,
        notes=tuple(notes),
        groups_N=train.groups_N,
    )


def _load_npz(config: DataConfig) -> Loaded:
    return read_npz(_given_path(config, "an .npz file with x_train, y_train, x_test, y_test"), config.pixel_max)


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
