"""Draws a grid of generated images."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = "#222222"
GRID_CELL = 56
"""Minimum size of an image in a sample grid, in pixels; smaller images are magnified by whole factors."""
GRID_GAP = 4


def sample_grid(images_NCHW: NDArray[np.uint8], path: Path | IO[bytes], labels: Sequence[str]) -> None:
    """Writes images as a PNG grid: one row per label, each label left of its row.

    Args:
        images_NCHW: uint8 images of one or three channels, row after row; N is a multiple of the number of labels.
        path: the PNG to write, or an open file.
        labels: names of the rows.

    Raises:
        ValueError: if the images do not fill the rows evenly, or are not uint8 with one or three channels.
    """
    num_images, num_channels, height, width = images_NCHW.shape
    if not labels or num_images == 0 or num_images % len(labels):
        raise ValueError(f"{num_images} images do not fill {len(labels)} rows evenly")
    if images_NCHW.dtype != np.uint8 or num_channels not in (1, 3):
        raise ValueError(f"images must be uint8 with 1 or 3 channels, not {images_NCHW.dtype} with {num_channels}")
    num_columns = num_images // len(labels)
    factor = max(1, -(-GRID_CELL // max(height, width)))
    large_NHWC = images_NCHW.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    step_y, step_x = height * factor + GRID_GAP, width * factor + GRID_GAP
    font = ImageFont.load_default(size=14)
    margin = 2 * GRID_GAP + int(max(font.getlength(label) for label in labels))
    size = (margin + GRID_GAP + num_columns * step_x, GRID_GAP + len(labels) * step_y)
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for index, image_HWC in enumerate(large_NHWC):
        row, column = divmod(index, num_columns)
        corner = (margin + GRID_GAP + column * step_x, GRID_GAP + row * step_y)
        grid.paste(Image.fromarray(image_HWC.squeeze(2) if num_channels == 1 else image_HWC), corner)
    for row, label in enumerate(labels):
        middle = (margin, GRID_GAP + row * step_y + height * factor / 2)
        draw.text(middle, label, fill=INK, font=font, anchor="rm")
    grid.save(path, format="PNG")
