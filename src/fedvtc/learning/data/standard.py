"""Reads standard data sets in the layout in which they are distributed, or in which torchvision stores them.

A data set that lies under the root is read without a network. torchvision downloads an absent data set if
`data.download` is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedvtc.config.schema import DataConfig
from fedvtc.learning.data import image_files, image_folders, readers
from fedvtc.learning.data.fetching import absent, await_others, by_torchvision, data_root
from fedvtc.learning.data.labels import numbered
from fedvtc.learning.data.readers import Loaded


@dataclass(frozen=True)
class IdxSource:
    """File names and classes of MNIST or a relative, each of four IDX files."""

    torchvision_name: str
    class_names: tuple[str, ...]
    prefixes: tuple[str, str] = ("train", "t10k")
    columns_first: bool = False


IDX_SOURCES = {
    "mnist": IdxSource("MNIST", numbered(10)),
    "fashion-mnist": IdxSource(
        "FashionMNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": IdxSource("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "emnist": IdxSource(
        "EMNIST",
        tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        prefixes=("emnist-balanced-train", "emnist-balanced-test"),
        columns_first=True,
    ),
}


NAMED_BY_FILES = ("mnist", "emnist")
"""Data sets whose files may lie in the root itself, because the file names tell them apart."""


def load_idx(config: DataConfig) -> Loaded:
    """Loads MNIST or a relative; of EMNIST the balanced split."""
    source = IDX_SOURCES[config.name]
    root = data_root(config)
    raw = root / source.torchvision_name / "raw"
    # Files of MNIST's relatives have the same names, so in the root itself they cannot be told apart.
    folders = (root / config.name, raw, *((root,) if config.name in NAMED_BY_FILES else ()))
    names = [f"{prefix}-{kind}-ubyte" for prefix in source.prefixes for kind in ("images-idx3", "labels-idx1")]

    def fetch() -> list[Path]:
        import torchvision.datasets

        options = {"split": "balanced"} if config.name == "emnist" else {}
        getattr(torchvision.datasets, source.torchvision_name)(root, download=config.download, **options)
        fetched = _find_all((raw,), names)
        if fetched is None:
            raise FileNotFoundError(f"torchvision left no files in {raw}")
        return fetched

    await_others(config)
    paths = _find_all(folders, names)
    if paths is None:
        paths = by_torchvision(config, folders, f"{', '.join(names)} (plain or .gz)", fetch)
    train, test = readers.read_idx_pair(*paths[:2]), readers.read_idx_pair(*paths[2:])
    if source.columns_first:
        train, test = (train[0].swapaxes(2, 3), train[1]), (test[0].swapaxes(2, 3), test[1])
    return Loaded(train, test, source.class_names)


def load_cifar(config: DataConfig) -> Loaded:
    """Loads CIFAR-10, or CIFAR-100 with its fine classes: the binary version if present, else torchvision's."""
    hundred = config.name == "cifar100"
    binary = "cifar-100-binary" if hundred else "cifar-10-batches-bin"
    names = (
        ["train.bin", "test.bin", "fine_label_names.txt"]
        if hundred
        else [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "batches.meta.txt"]
    )
    folders = (data_root(config) / config.name, data_root(config))

    def fetch() -> Loaded:
        from torchvision.datasets import CIFAR10, CIFAR100

        # These files are pickles; torchvision checks their MD5 before it opens one.
        kind = CIFAR100 if hundred else CIFAR10
        folder = _torchvision_folder(config, kind.base_folder)
        train, test = (kind(folder, train=is_train, download=config.download) for is_train in (True, False))
        class_names = tuple(train.classes)
        arrays = [(half.data.transpose(0, 3, 1, 2), np.array(half.targets, np.int64)) for half in (train, test)]
        return Loaded(arrays[0], arrays[1], class_names)

    paths = _find_all([folder / binary for folder in folders], names)
    if paths is None:
        return by_torchvision(config, folders, f"the folder {binary} ({', '.join(names)})", fetch)
    *train_paths, test_path, names_path = paths
    num_label_bytes = 2 if hundred else 1
    train = readers.read_cifar_binary(train_paths, num_label_bytes)
    return Loaded(
        train, readers.read_cifar_binary([test_path], num_label_bytes), tuple(names_path.read_text("ascii").split())
    )


def load_svhn(config: DataConfig) -> Loaded:
    """Loads the cropped digits of Street View House Numbers."""
    files = ("train_32x32.mat", "test_32x32.mat")

    def fetch() -> Loaded:
        from torchvision.datasets import SVHN

        folder = _torchvision_folder(config, *files)
        train, test = (SVHN(folder, split=split, download=config.download) for split in ("train", "test"))
        return Loaded((train.data, train.labels), (test.data, test.labels), numbered(10))

    return by_torchvision(config, (data_root(config) / config.name, data_root(config)), " and ".join(files), fetch)


def load_tiny_imagenet(config: DataConfig) -> Loaded:
    """Loads Tiny ImageNet (200 classes, 64 pixels) from its unpacked zip."""
    root = data_root(config)
    folders = (root / "tiny-imagenet-200", root / config.name / "tiny-imagenet-200", root / config.name)
    folder = next((folder for folder in folders if all((folder / split).is_dir() for split in ("train", "val"))), None)
    if folder is None:
        wanted = "the folders of tiny-imagenet-200.zip (train, val)"
        raise absent(config, folders, wanted, "torchvision cannot download it")
    class_names = image_folders.subfolders(folder / "train")
    train = image_folders.list_image_folder(folder / "train", class_names)
    # The validation images are the test set, because the test labels were never published. As distributed they lie in
    # one folder; many programs move them to a folder per class.
    if (folder / "val" / "images").is_dir():
        test = image_folders.list_val_annotations(folder / "val", class_names)
    else:
        test = image_folders.list_image_folder(folder / "val", class_names)
    reader = image_files.ImageReader(config.image_size)
    train_NCHW, test_NCHW = (reader.read(files.paths, grey=False) for files in (train, test))
    return Loaded((train_NCHW, train.labels_N), (test_NCHW, test.labels_N), class_names)


def _find_all(folders: Sequence[Path], names: Sequence[str]) -> list[Path] | None:
    """Finds the files of these names, plain or gzipped, in the first folder that has them all."""
    for folder in folders:
        candidates = [[path for path in (folder / name, folder / f"{name}.gz") if path.is_file()] for name in names]
        if all(candidates):
            return [paths[0] for paths in candidates]
    return None


def _torchvision_folder(config: DataConfig, *entries: str) -> Path:
    """Returns the folder that torchvision reads and writes: the root if the root has the entries, else root/<name>."""
    root = data_root(config)
    return root if all((root / entry).exists() for entry in entries) else root / config.name
