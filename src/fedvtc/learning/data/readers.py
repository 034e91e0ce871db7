"""Reads the binary files of standard data sets, IDX and CIFAR.

Images are uint8, N x C x H x W with C 1 (grey) or 3 (RGB); labels int64, N.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Loaded(NamedTuple):
    """Training and test images of a data set's files, with the names of its classes.

    Attributes:
        train: training images and labels.
        test: test images and labels.
        class_names: names of the classes.
        notes: files and arrays that were passed over, and changes of images and labels while reading.
        dtype: type of the pixels in the files.
        groups_N: number of the group, such as the user, of each training image; None if the files name no groups.
    """

    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    dtype: str = "uint8"
    groups_N: NDArray[np.int64] | None = None


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
    return DataError(f"{path}: {what}. Move the file away and download it again, or repair it.")
