"""Lists the image files of folders, with one folder per class.

Shapes: N images.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError
from fedvtc.learning.data.readers import damaged, read_bytes

_WITHOUT_DECODER = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow recognises and cannot read without other programs."""
_OF_OTHER_PROGRAMS = ("__MACOSX", "@eaDir")
"""Folders of resource forks and previews, by macOS and by Synology."""
MAX_SHOWN = 5
"""Most folders that an error names."""


@dataclass
class ImageFiles:
    """Image files with labels.

    Attributes:
        paths: the files, in order of class and name.
        labels: class of each file.
        groups: name of the folder below the class of each file; empty for files in the class folder itself.
        passed_over: other files.
    """

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)

    @property
    def labels_N(self) -> NDArray[np.int64]:
        """Class of each file, as an array."""
        return np.array(self.labels, dtype=np.int64)

    @property
    def groups_N(self) -> NDArray[np.int64] | None:
        """Number of each file's group, groups in alphabetical order; None unless every file has a group."""
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64) if all(self.groups) else None


def subfolders(folder: Path) -> tuple[str, ...]:
    """Returns the names of the class folders of an image folder, sorted.

    Raises:
        DataError: the folder has no class folder, or cannot be read.
    """
    try:
        if not folder.is_dir():
            fix = "Set data.path to a folder that holds train/CLASS/ and test/CLASS/."
            raise DataError(f"{folder}: no such folder{_beside(folder)}. {fix}")
        names = _folders_in(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Make the folder readable.") from None
    if not names:
        raise DataError(f"{folder}: holds no class folders. Put the images of each class into a folder of its own.")
    return tuple(names)


def unknown_class(names: Sequence[str], class_names: Sequence[str]) -> str | None:
    """Returns the first of some folder names that is no class, in any Unicode form; None if all are classes."""
    known = {_composed(name) for name in class_names}
    return next((name for name in names if _composed(name) not in known), None)


def list_image_folder(folder: Path, class_names: Sequence[str]) -> ImageFiles:
    """Lists the image files of folder/<class>/ at any depth, in order of class and name.

    Raises:
        DataError: there is no image file.
    """
    listed = ImageFiles()
    for label, name in enumerate(class_names):
        of_class = _folder_of(folder, name)
        for path in sorted(_files(of_class)):
            if path.suffix.lower() not in image_suffixes():
                listed.passed_over.append(path)
                continue
            listed.paths.append(path)
            listed.labels.append(label)
            listed.groups.append((*path.relative_to(of_class).parts[:-1], "")[0])
    listed.passed_over += [
        entry for entry in sorted(folder.iterdir()) if entry.is_file() and not _is_foreign(entry.name)
    ]
    if not listed.paths:
        raise DataError(f"{folder}: holds no image. Put image files, such as .png or .jpg, into <class>/.")
    return listed


def refuse_empty_classes(folder: Path, class_names: Sequence[str], listed: ImageFiles) -> None:
    """Refuses a class folder without an image, because the class would exist and never be trained.

    Raises:
        DataError: a class of `class_names` has no image.
    """
    num_images_C = np.bincount(listed.labels_N, minlength=len(class_names))
    for name, num_images in zip(class_names, num_images_C, strict=True):
        if num_images:
            continue
        path = folder / name
        others = [other for other in listed.passed_over if other.is_relative_to(path)]
        found = f"no image that Pillow reads ({in_words(others)})" if others else "no image"
        raise DataError(f"{path}: holds {found}. Add images of the class, or move the folder out of {folder}.")


def in_words(files: Sequence[Path]) -> str:
    """Counts files by suffix, such as `3 files: 2 .txt, 1 .csv, such as train/a.txt`."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in files)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(4))
    return f"{len(files)} file{'s' * (len(files) != 1)}: {kinds}{', ...' * (len(counts) > 4)}, such as {files[0]}"


def list_val_annotations(folder: Path, class_names: Sequence[str]) -> ImageFiles:
    """Lists Tiny ImageNet's validation images, by folder/val_annotations.txt (file, class, box; tab-separated)."""
    listing = folder / "val_annotations.txt"
    numbers = {name: label for label, name in enumerate(class_names)}
    listed = ImageFiles()
    for line_number, line in enumerate(read_bytes(listing).decode("ascii", "replace").splitlines(), start=1):
        file_name, _, rest = line.partition("\t")
        name = rest.split("\t")[0]
        if name not in numbers:
            raise damaged(listing, f"line {line_number} names the class {name!r}, which train/ lacks")
        listed.paths.append(folder / "images" / file_name)
        listed.labels.append(numbers[name])
    if not listed.paths:
        raise damaged(listing, "expected a line per validation image, found none")
    return listed


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of the image files that Pillow reads by itself."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _WITHOUT_DECODER)


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder, also behind links, without hidden files and files of other programs."""
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not _is_foreign(name)]
        if real in seen:
            # A link to a folder above would never end.
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent, name) for name in files if not _is_foreign(name))


def _folder_of(folder: Path, name: str) -> Path:
    """Returns the folder of a class: macOS may write an accented letter of its name as two letters."""
    if os.path.exists(folder / name) or name.isascii():
        return folder / name
    same = (entry for entry in folder.iterdir() if _composed(entry.name) == _composed(name))
    return next(same, folder / name)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_foreign(entry.name))


def _beside(folder: Path) -> str:
    """Returns the folders beside an absent folder in words, such as val/ in place of test/; empty if there are none."""
    names = _folders_in(folder.parent) if folder.parent.is_dir() else []
    more = ", ..." if len(names) > MAX_SHOWN else ""
    return f" ({folder.parent} holds {', '.join(names[:MAX_SHOWN])}{more})" if names else ""


def _refuse(error: OSError) -> None:
    """Raises an error for a folder that cannot be read, which `os.walk` would pass over; a class may lack a folder."""
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Make the folder readable.")


def _is_foreign(name: str) -> bool:
    """Returns True for files of other programs, such as checkpoints of notebooks and resource forks of macOS."""
    return name.startswith(".") or name in _OF_OTHER_PROGRAMS
