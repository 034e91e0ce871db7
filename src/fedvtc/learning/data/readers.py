"""Reads files that hold a whole data set.

Images are uint8, N x C x H x W with C 1 (grey) or 3 (RGB); labels int64, N.
"""

import gzip
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Loaded(NamedTuple):
    """Training and test images of a data set's files, with the names of its classes."""

    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]


def numbered(num_classes: int) -> tuple[str, ...]:
    """Returns numbers as class names, for a data set without names."""
    return tuple(str(label) for label in range(num_classes))


def read_idx(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """Reads one IDX file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Raises:
        DataError: the file is damaged, or has another number of dimensions.
    """
    content = read_bytes(path)
    magic = bytes([0, 0, 0x08, num_dimensions])
    if content[:4] != magic:
        found = content[:4].hex() or "no byte"
        raise damaged(path, f"expected an IDX file that begins with {magic.hex()}, found {found}")
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes:
        raise damaged(path, f"expected a header of {header_bytes} bytes, found {len(content)}")
    shape = [int.from_bytes(content[start : start + 4], "big") for start in range(4, header_bytes, 4)]
    expected_bytes = header_bytes + math.prod(shape)
    if len(content) != expected_bytes:
        raise damaged(path, f"expected {expected_bytes} bytes, found {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def read_idx_pair(images_path: Path, labels_path: Path) -> Arrays:
    """Reads the images and the labels of one split of MNIST or one of its relatives."""
    images_NHW, labels_N = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images_NHW) != len(labels_N):
        counts = f"{len(labels_N)} labels for the {len(images_NHW)} images of {images_path.name}"
        raise damaged(labels_path, f"holds {counts}")
    return images_NHW[:, None], labels_N.astype(np.int64)


def read_cifar_binary(paths: Sequence[Path], num_label_bytes: int) -> Arrays:
    """Reads the binary version of CIFAR: records of label bytes, the last one the class, and 3 x 32 x 32 pixels."""
    record_bytes = num_label_bytes + 3 * 32 * 32
    batches = []
    for path in paths:
        content = read_bytes(path)
        if not content or len(content) % record_bytes:
            raise damaged(path, f"expected records of {record_bytes} bytes, found {len(content)} bytes")
        batches.append(np.frombuffer(content, dtype=np.uint8).reshape(-1, record_bytes))
    records = np.concatenate(batches)
    return records[:, num_label_bytes:].reshape(-1, 3, 32, 32), records[:, num_label_bytes - 1].astype(np.int64)


def read_npz(path: Path) -> tuple[Arrays, Arrays, tuple[str, ...] | None]:
    """Reads the arrays `x_train`, `y_train`, `x_test`, `y_test` and, if present, `class_names`.

    Images are N,H,W or N,H,W,C or N,C,H,W with C 1 or 3; uint8, or float in [0, 1].

    Raises:
        DataError: the file is absent or damaged, or lacks an array or holds a wrong one.
    """
    try:
        # Opened here, because np.load does not close a file that is not a zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Set data.path to an .npz file.") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"cannot be read as .npz ({error})") from None
    missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
    if missing:
        found = ", ".join(arrays) or "nothing"
        raise DataError(f"{path}: lacks {', '.join(missing)} (the file holds {found}). Add arrays of these names.")
    names = tuple(str(name) for name in arrays["class_names"]) if "class_names" in arrays else None
    train, test = (
        (_as_images(path, f"x_{split}", arrays[f"x_{split}"]), _as_labels(path, f"y_{split}", arrays[f"y_{split}"]))
        for split in ("train", "test")
    )
    return train, test, names


def _as_images(path: Path, key: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        shapes = "N,H,W or N,H,W,C or N,C,H,W with C 1 or 3"
        raise DataError(f"{path}: {key} has the shape {images.shape}. Reshape it to {shapes}.")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    # NaN fails these comparisons too.
    if images.dtype.kind == "f" and images.size and images.min() >= 0 and images.max() <= 1:
        return np.ascontiguousarray(np.rint(images * 255.0).astype(np.uint8))
    found = f"holds neither uint8 nor floats in [0, 1], but {images.dtype}"
    raise DataError(f"{path}: {key} {found}. Convert {key} to uint8.")


def _as_labels(path: Path, key: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} of the shape {labels.shape}"
        raise DataError(f"{path}: {key} holds {found}. Store one whole number per image.")
    return labels.astype(np.int64)


def read_bytes(path: Path) -> bytes:
    """Reads a whole file, unpacked if gzipped.

    Raises:
        DataError: the file cannot be read or unpacked.
    """
    try:
        content = path.read_bytes()
        # By content, not by name: browsers unpack a .gz file and keep its name.
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"cannot be read ({error})") from None


def damaged(path: Path, what: str) -> DataError:
    """Builds the error for a damaged file."""
    return DataError(f"{path}: {what}. Delete the file and download it again, or repair it.")
