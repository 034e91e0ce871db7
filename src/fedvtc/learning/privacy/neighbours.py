"""Nearest images by the distance of their pixels.

Shapes: N images, M reference images, P pixels of an image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 2**26
"""Bytes of the reference images that are compared at once, as float64."""


class Nearest(NamedTuple):
    """The nearest reference image of each image.

    Attributes:
        index_N: index of the reference image; the first of several that are equally near.
        distance_N: root mean square of the pixel differences, on the scale 0 (black) to 1 (white).
    """

    index_N: NDArray[np.int64]
    distance_N: NDArray[np.float64]


def nearest(images_NCHW: NDArray[np.uint8], references_MCHW: NDArray[np.uint8], *, skip_equal: bool = False) -> Nearest:
    """Finds the nearest reference image of each image.

    Sums of squares of whole pixels are exact in float64, so the result depends on no order of summation.

    Args:
        images_NCHW: pixels from 0 to 255.
        references_MCHW: pixels from 0 to 255, at least one image.
        skip_equal: True leaves out references that equal the image, such as the image itself.
    """
    images_NP = images_NCHW.reshape(len(images_NCHW), -1).astype(np.float64)
    squares_N = np.square(images_NP).sum(axis=1)
    num_pixels = images_NP.shape[1]
    step = max(1, CHUNK_BYTES // (8 * num_pixels))
    index_N = np.zeros(len(images_NP), dtype=np.int64)
    least_N = np.full(len(images_NP), np.inf)
    for start in range(0, len(references_MCHW), step):
        part_MP = references_MCHW[start : start + step].reshape(-1, num_pixels).astype(np.float64)
        distance_NM = squares_N[:, None] + np.square(part_MP).sum(axis=1) - 2 * images_NP @ part_MP.T
        if skip_equal:
            distance_NM[distance_NM == 0] = np.inf
        found_N = distance_NM.argmin(axis=1)
        found_distance_N = distance_NM[np.arange(len(images_NP)), found_N]
        is_nearer_N = found_distance_N < least_N
        index_N[is_nearer_N] = start + found_N[is_nearer_N]
        least_N[is_nearer_N] = found_distance_N[is_nearer_N]
    return Nearest(index_N, np.sqrt(least_N / num_pixels) / 255.0)
