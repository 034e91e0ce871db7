"""Reads a data set of the user from the named arrays of an .npz file, or from a mapping with such arrays.

Images are uint8, N x C x H x W with C 1 (grey) or 3 (RGB); labels int64, N.
"""

import textwrap
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError
from fedvtc.learning.data.labels import as_texts, classes_of, one_per_image
from fedvtc.learning.data.pixels import to_uint8
from fedvtc.learning.data.readers import Loaded

_WORDS = {"images": ("x", "image", "images", "data"), "labels": ("y", "label", "labels", "target", "targets")}
_GROUPS = ("user", "writer", "client", "group", "subject")
"""Names of the array with the group of each training image; also with an s, _id, _ids, _train or train_."""
_SHAPES = "N,H,W or N,H,W,C or N,C,H,W with C 1 or 3"
_SAVE_AGAIN = "Save the arrays with np.savez."


def read_npz(path: Path, pixel_max: float | None) -> Loaded:
    """Reads images and labels for training and test and, if present, `class_names` and the group of each image.

    Args:
        path: the file.
        pixel_max: value of white, `data.pixel_max`.

    Raises:
        DataError: the file is absent or damaged, or lacks an array or holds a wrong one.
    """
    try:
        # Opened here, because np.load does not close a file that is not a zip.
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: is no .npz file, or only a part of one. {_SAVE_AGAIN}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return read_arrays(path, archive, pixel_max)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Set data.path to an .npz file.") from None
    except IsADirectoryError:
        fix = "Set data.path to the .npz file, or data.name=folder for folders of images."
        raise DataError(f"{path}: is a folder. {fix}") from None
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({_short(error)}). {_SAVE_AGAIN}") from None


def read_arrays(path: Path | str, archive: Mapping[str, NDArray[Any]], pixel_max: float | None) -> Loaded:
    """Reads images and labels for training and test and, if present, `class_names` and the group of each image.

    Args:
        path: the origin of the arrays, for the error.
        archive: the arrays by name.
        pixel_max: value of white, `data.pixel_max`.

    Raises:
        DataError: an array is absent or wrong.
    """
    keys = _keys_by_part(path, list(archive))
    images, labels, dtypes = {}, {}, {}
    for split in ("train", "test"):
        key = keys[f"images {split}"]
        array = _array(path, archive, key)
        images[split], dtypes[key] = _as_images(path, key, array, pixel_max), str(array.dtype)
        key = keys[f"labels {split}"]
        labels[split] = one_per_image(f"{path}: {key}", _array(path, archive, key))
    names = _class_names(path, archive) if "class_names" in archive else None
    classes = classes_of(path, labels["train"], labels["test"], names)
    groups = {key: _groups(archive, key, len(images["train"])) for key in archive if _is_of_groups(key)}
    group_key = next((key for key, groups_N in groups.items() if groups_N is not None), None)
    notes = list(classes.notes)
    if set(dtypes.values()) != {"uint8"} or pixel_max not in (None, 255):
        held = ", ".join(f"{key} ({dtype})" for key, dtype in dtypes.items())
        notes.append(f"pixels of {held} are scaled to whole numbers from 0 to 255")
    unused = [key for key in archive if key not in (*keys.values(), "class_names", group_key)]
    if unused:
        notes.append(f"arrays left out: {', '.join(unused)}")
    return Loaded(
        (images["train"], classes.train_N),
        (images["test"], classes.test_N),
        classes.names,
        notes=tuple(notes),
        dtype=dtypes[keys["images train"]],
        groups_N=groups[group_key] if group_key else None,
    )


def _keys_by_part(path: Path | str, keys: list[str]) -> dict[str, str]:
    """Finds the arrays by their usual names: `x_train`, `train_images`, `X_train`, `trainX` and so on."""
    found: dict[str, list[str]] = {}
    for part, words in _WORDS.items():
        for split in ("train", "test"):
            spellings = {name for word in words for name in (word + split, split + word)}
            found[f"{part} {split}"] = [key for key in keys if key.lower().replace("_", "") in spellings]
    missing = [f"{'x' if part[0] == 'i' else 'y'}_{part.split()[1]}" for part, names in found.items() if not names]
    if missing:
        held = ", ".join(keys) or "nothing"
        raise DataError(
            f"{path}: lacks {', '.join(sorted(missing))} (the file holds {held}). Add arrays of these names."
        )
    for part, names in found.items():
        if len(names) > 1:
            raise DataError(f"{path}: {' and '.join(names)} both hold {part.replace(' ', ' for ')}. Keep one of them.")
    return {part: name for part, (name,) in found.items()}


def _array(path: Path | str, archive: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        what = f"{key} holds Python objects, as when its entries differ in shape"
        raise DataError(f"{path}: {what}. Store one array of numbers or texts.") from None


def _as_images(path: Path | str, key: str, images: NDArray[Any], pixel_max: float | None) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"{path}: {key} has the shape {images.shape}. Reshape it to {_SHAPES}.")
    return np.ascontiguousarray(to_uint8(images, pixel_max, f"{path}: {key}"))


def _class_names(path: Path | str, archive: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    names = _array(path, archive, "class_names")
    if names.ndim != 1 or names.dtype.kind not in "iuUS":
        what = f"class_names holds {names.dtype} of the shape {names.shape}"
        raise DataError(f"{path}: {what}. Store a list of texts, one name per class.")
    texts: list[str] = as_texts(names).tolist()
    if len(set(texts)) < len(texts):
        twice = Counter(texts).most_common(1)[0][0]
        raise DataError(f"{path}: class_names holds {twice!r} more than once. Give each class a name of its own.")
    return tuple(texts)


def _is_of_groups(key: str) -> bool:
    plain = key.lower().removeprefix("train_").removesuffix("_train")
    return plain.removesuffix("s").removesuffix("_id").removesuffix("s") in _GROUPS


def _groups(archive: Mapping[str, NDArray[Any]], key: str, num_images: int) -> NDArray[np.int64] | None:
    """Numbers the groups of the training images in ascending order; None if the array is not one id per image."""
    try:
        ids = archive[key]
    except ValueError:
        return None
    ids = ids[:, 0] if ids.ndim == 2 and ids.shape[1] == 1 else ids
    if ids.shape != (num_images,) or ids.dtype.kind not in "iuUS":
        return None
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 120).rstrip(".") or type(error).__name__
