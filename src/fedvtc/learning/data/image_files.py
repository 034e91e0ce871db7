"""Reads image files as uint8, N x C x H x W with C 1 (grey) or 3 (RGB), and resizes images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError
from fedvtc.learning.data.pixels import to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_ORIENTATION = 0x0112
"""Number of the EXIF tag with the orientation of the camera."""


class ImageReader:
    """Reads the image files of a data set and counts everything that reading changes.

    Args:
        image_size: side in pixels that all images are resized to; None keeps the size of the files.
        pixel_max: value of white, `data.pixel_max`.

    Attributes:
        changes: number of files by change, in words that follow on `3 files`.
    """

    def __init__(self, image_size: int | None, pixel_max: float | None = None) -> None:
        self.changes: Counter[str] = Counter()
        self._image_size, self._pixel_max = image_size, pixel_max

    def are_grey(self, paths: Sequence[Path]) -> bool:
        """Returns True if all files are grey by their headers.

        Raises:
            DataError: a file is not an image that can be read.
        """
        modes = Counter(self._mode(path) for path in paths)
        num_grey = sum(count for mode, count in modes.items() if mode.partition(";")[0] in _GREY_MODES)
        if 0 < num_grey < len(paths):
            self.changes["grey, read as RGB because others have colours"] += num_grey
        return num_grey == len(paths)

    def read(self, paths: Sequence[Path], *, grey: bool) -> NDArray[np.uint8]:
        """Reads files into one array N x C x H x W.

        Args:
            paths: the files.
            grey: True reads one channel, False three.

        Raises:
            DataError: a file is not an image that can be read, or sizes differ and `image_size` is None.
        """
        images_NCHW: NDArray[np.uint8] | None = None
        for number, path in enumerate(paths):
            pixels_CHW = self._pixels_of(path, grey)
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

    def _mode(self, path: Path) -> str:
        from PIL import Image

        try:
            with Image.open(path) as image:
                self._check_depth(path, image.mode)
                return image.mode
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from None

    def _pixels_of(self, path: Path, grey: bool) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(path) as opened:
                self._check_depth(path, opened.mode)
                image = self._scaled(path, self._opaque(self._upright(opened)), "L" if grey else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from None
        size = self._image_size
        if size is not None and image.size != (size, size):
            self.changes[f"resized to {size} x {size}"] += 1
            if image.width != image.height:
                self.changes["not square, with other proportions after resizing"] += 1
            image = _resized(image, size)
        return _pixels(image)

    def _upright(self, image: "Image") -> "Image":
        """Returns the first frame, turned as the camera says."""
        from PIL import ImageOps

        if getattr(image, "is_animated", False):
            self.changes["with several frames, of which the first is read"] += 1
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        self.changes["turned upright by EXIF orientation"] += 1
        return ImageOps.exif_transpose(image)

    def _opaque(self, image: "Image") -> "Image":
        """Returns the image on a white background if a pixel is transparent: the ink may be in the alpha channel."""
        from PIL import Image

        if not image.has_transparency_data:
            return image
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema()[0] == 255:
            return image
        self.changes["partly transparent, put on white"] += 1
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB")

    def _scaled(self, path: Path, image: "Image", mode: str) -> "Image":
        from PIL import Image

        if self._pixel_max is None:
            return image.convert(mode)
        # Before resizing, which would round small pixels to whole numbers.
        pixels = np.asarray(image if image.mode[0] in "IF" else image.convert(mode))
        return Image.fromarray(to_uint8(pixels, self._pixel_max, f"{path}: the image")).convert(mode)

    def _check_depth(self, path: Path, mode: str) -> None:
        """Refuses more than 8 bits a channel: Pillow would keep the lowest 8 bits, or clip values above 255."""
        if mode[0] in "IF" and self._pixel_max is None:
            what = f"holds {'floats' if mode[0] == 'F' else 'more than 8 bits a pixel'} (Pillow's mode {mode})"
            raise DataError(f"{path}: {what}. Set data.pixel_max to the pixel of white, such as 65535.")


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


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read as an image ({error}). Repair or replace the file, or move it out of the folder."
    )


def _resized(image: "Image", image_size: int) -> "Image":
    from PIL import Image

    return image.resize((image_size, image_size), Image.Resampling.BILINEAR)


def _pixels(image: "Image") -> NDArray[np.uint8]:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
