"""Converts the pixels of the user's files to uint8, and refuses pixels whose scale is surely not that of the file type.

Shapes: N images, D pixels of an image, G groups of equal images.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError

_WHITE = {"b": 1.0, "f": 1.0}
"""Value of white by kind of dtype, where the kind alone decides; uint8 has 255."""
_USUAL_MAXIMA = (1, 15, 16, 31, 63, 100, 127, 255, 1023, 4095, 16383, 65535)


def to_uint8(pixels: NDArray[Any], pixel_max: float | None, where: str) -> NDArray[np.uint8]:
    """Scales pixels so that black stays 0 and white becomes 255.

    Args:
        pixels: numbers of any shape and type.
        pixel_max: the value of white, `data.pixel_max`; None takes the value of the type.
        where: file and array of the pixels, for the error.

    Raises:
        DataError: the pixels are not numbers or not finite, white is unknown, or a pixel is outside the scale.
    """
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {pixels.dtype}, not pixels. Store uint8, or floats from 0 to 1.")
    if not pixels.size:
        return pixels.astype(np.uint8)
    num_not_finite = int(np.count_nonzero(~np.isfinite(pixels))) if pixels.dtype.kind == "f" else 0
    if num_not_finite:
        what = f"{num_not_finite} of {pixels.size} pixels are NaN or infinite"
        raise DataError(f"{where}: {what}. Replace these pixels, or leave out their images.")
    least, largest = float(pixels.min()), float(pixels.max())
    white = pixel_max or (255.0 if pixels.dtype == np.uint8 else _WHITE.get(pixels.dtype.kind))
    if pixels.dtype == np.uint8 and pixel_max is not None and pixel_max > 255:
        what = f"has 8 bits a pixel, which data.pixel_max={pixel_max:g} does not fit"
        raise DataError(f"{where} {what}. Bring all images to one depth.")
    found = f"{where} holds {pixels.dtype} from {least:g} to {largest:g}"
    if least < 0:
        raise DataError(f"{found}. Scale the pixels so that black is 0 and white is 1 (floats) or 255 (uint8).")
    fix = f"Set data.pixel_max={_usual(largest)} if that is the value of white."
    if white is None:
        raise DataError(f"{found}. {fix}")
    if largest > white:
        raise DataError(f"{found}, above {white:g}, the value of white. {fix}")
    if pixel_max is None:
        refuse_dark(where, largest, white)
    if pixels.dtype == np.uint8 and white == 255:
        return pixels
    return np.rint(pixels * (255.0 / white)).astype(np.uint8)


def refuse_dark(where: str, largest: float, white: float) -> None:
    """Refuses images without a pixel of half the value of white: white probably has another value.

    Args:
        where: file and array of the pixels, for the error.
        largest: the largest pixel.
        white: the value of white.

    Raises:
        DataError: the largest pixel is less than half of `white`.
    """
    if largest == 0:
        raise DataError(f"{where}: all pixels are 0, black. Save the images again, with their pixels.")
    if largest < white / 2:
        what = f"the largest pixel is {largest:g}, where white is {white:g}, so all images would be dark"
        usual = _usual(largest, white)
        fix = f"Set data.pixel_max={usual} if {usual} is white, or data.pixel_max={white:g} if the images are dark."
        raise DataError(f"{where}: {what}. {fix}")


def count_shared(images_NCHW: NDArray[np.uint8], others_NCHW: NDArray[np.uint8]) -> int:
    """Counts the images that are equal, pixel by pixel, to one of the others."""
    if images_NCHW.shape[1:] != others_NCHW.shape[1:]:
        return 0
    return int(np.isin(_row_hashes(images_NCHW), _row_hashes(others_NCHW)).sum())


def count_contradictions(images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> int:
    """Counts the images that are equal, pixel by pixel, to an image of another class."""
    _, groups_N, counts_G = np.unique(_row_hashes(images_NCHW), return_inverse=True, return_counts=True)
    least_G, largest_G = np.full(len(counts_G), labels_N.max()), np.full(len(counts_G), -1)
    np.minimum.at(least_G, groups_N, labels_N)
    np.maximum.at(largest_G, groups_N, labels_N)
    return int(counts_G[least_G < largest_G].sum())


def _row_hashes(images_NCHW: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Returns a 64-bit hash of each image: its bytes times random numbers, summed modulo 2^64.

    Two different images have equal hashes with a probability below 2^-48 (Dietzfelbinger et al. 1997), so 10^9 pairs
    of images hold no wrong pair. SHA-256 of each image would need a loop in Python.
    """
    rows_ND = np.ascontiguousarray(images_NCHW).reshape(len(images_NCHW), -1)
    words_ND = rows_ND.view(np.uint16) if rows_ND.shape[1] % 2 == 0 else rows_ND
    multipliers_D = np.random.default_rng(0).integers(2**64, size=words_ND.shape[1], dtype=np.uint64)
    hashes_N: NDArray[np.uint64] = np.einsum("nd,d->n", words_ND, multipliers_D, dtype=np.uint64, casting="safe")
    return hashes_N


def _usual(largest: float, below: float = math.inf) -> str:
    """Returns the least usual value of white that is not below the largest pixel, else the largest pixel itself."""
    return f"{next((usual for usual in _USUAL_MAXIMA if largest <= usual < below), largest):g}"
