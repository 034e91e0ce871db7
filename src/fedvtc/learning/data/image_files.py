"""Reads folders of image files, and resizes images.

Images are uint8, N x C x H x W with C 1 (grey) or 3 (RGB); labels int64, N.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError
from fedvtc.learning.data.readers import damaged, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def subfolders(folder: Path) -> tuple[str, ...]:
    """Returns the names of the class folders of an image folder, sorted.

    Raises:
        DataError: the folder has no class folder, or cannot be read.
    """
    try:
        entries = folder.iterdir() if folder.is_dir() else ()
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Make the folder readable.") from None
    if not names:
        raise DataError(f"{folder}: holds no class folders. Put the images of each class into a folder of its own.")
    return tuple(names)


def read_image_files(paths: Sequence[Path], image_size: int | None, *, grey: bool) -> NDArray[np.uint8]:
    """Reads image files into one array N x C x H x W.

    Args:
        paths: the files.
        image_size: side in pixels that all images are resized to; None keeps the size of the files.
        grey: True reads one channel, False three.

    Raises:
        DataError: a file is not an image of 8 bits per channel, or sizes differ and `image_size` is None.
    """
    from PIL import Image

    images_NCHW: NDArray[np.uint8] | None = None
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as opened:
                _check_depth(path, opened.mode)
                image = opened.convert("L" if grey else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise damaged(path, f"cannot be read as an image ({error})") from None
        pixels_CHW = _pixels(image if image_size is None else _resized(image, image_size))
        if images_NCHW is None:
            images_NCHW = np.empty((len(paths), *pixels_CHW.shape), np.uint8)
        if pixels_CHW.shape != images_NCHW.shape[1:]:
            expected, found = images_NCHW.shape, pixels_CHW.shape
            raise DataError(
                f"data.image_size: sizes differ: {path} is {found[2]} x {found[1]}, {paths[0]} is"
                f" {expected[3]} x {expected[2]}. Set data.image_size, for example to 32, to resize all images."
            )
        images_NCHW[number] = pixels_CHW
    assert images_NCHW is not None, "folders without images are refused earlier"
    return images_NCHW


def are_grey(paths: Sequence[Path]) -> bool:
    """Returns True if all image files are grey by their headers.

    Raises:
        DataError: a file is not an image of 8 bits per channel.
    """
    from PIL import Image

    def is_grey(path: Path) -> bool:
        try:
            with Image.open(path) as image:
                _check_depth(path, image.mode)
                return image.mode in ("1", "L", "LA")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise damaged(path, f"cannot be read as an image ({error})") from None

    return all(is_grey(path) for path in paths)


def list_image_folder(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    """Lists the image files of folder/<class>/, in order of class and name, and their labels.

    Raises:
        DataError: there is no image file.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(_image_files(folder / name))
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder}: holds no image. Put files {', '.join(sorted(IMAGE_SUFFIXES))} into <class>/.")
    return paths, np.array(labels, dtype=np.int64)


def _image_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        is_hidden = any(map(_is_hidden, (path, *path.relative_to(folder).parents)))
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden:
            yield path


def _is_hidden(path: Path) -> bool:
    """Returns True for files of other programs, such as checkpoints of notebooks and resource forks of macOS."""
    return path.name.startswith(".")


def _check_depth(path: Path, mode: str) -> None:
    """Refuses more than 8 bits a channel: Pillow would keep the lowest 8 bits, or clip values above 255."""
    if mode[0] in "IF":
        what = f"holds {'floats' if mode[0] == 'F' else 'more than 8 bits a pixel'} (Pillow's mode {mode})"
        raise DataError(f"{path}: {what}. Convert the images to 8 bits, or use data.name=npz with uint8 arrays.")


def list_val_annotations(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    """Lists Tiny ImageNet's validation images, by folder/val_annotations.txt (file, class, box; tab-separated)."""
    listing = folder / "val_annotations.txt"
    numbers = {name: label for label, name in enumerate(class_names)}
    paths, labels = [], []
    for line_number, line in enumerate(read_bytes(listing).decode("ascii", "replace").splitlines(), start=1):
        file_name, _, rest = line.partition("\t")
        name = rest.split("\t")[0]
        if name not in numbers:
            raise damaged(listing, f"line {line_number} names the class {name!r}, which train/ lacks")
        paths.append(folder / "images" / file_name)
        labels.append(numbers[name])
    if not paths:
        raise damaged(listing, "expected a line per validation image, found none")
    return paths, np.array(labels, dtype=np.int64)


def resize_images(images_NCHW: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resizes images to image_size x image_size, bilinearly with antialiasing, without keeping the aspect ratio."""
    from PIL import Image

    num_images, num_channels = images_NCHW.shape[:2]
    resized_NCHW = np.empty((num_images, num_channels, image_size, image_size), np.uint8)
    for number, image_CHW in enumerate(images_NCHW):
        pixels = image_CHW[0] if num_channels == 1 else image_CHW.transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(pixels))
        resized_NCHW[number] = _pixels(_resized(image, image_size))
    return resized_NCHW


def _resized(image: "Image", image_size: int) -> "Image":
    from PIL import Image

    return image.resize((image_size, image_size), Image.Resampling.BILINEAR)


def _pixels(image: "Image") -> NDArray[np.uint8]:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
