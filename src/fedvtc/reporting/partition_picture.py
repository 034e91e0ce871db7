"""Draws the partition of classes over clients.

With Pillow alone, because every run draws this picture at its start, and the import of a library of charts takes longer
than the rest of the start after the import of PyTorch. Lengths are in pixels. Shape suffixes: K clients, C classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_BUBBLE_ROWS = 40
MAX_BUBBLE_COLUMNS = 26
"""Larger partitions are drawn as a heat map instead of bubbles with numbers."""

INK, FAINT, BUBBLE = "#222222", "#d9d9d9", "#9cc3ea"
SHADES = np.array([[207, 226, 243], [91, 155, 213], [8, 48, 107]])
"""Red, green and blue of few, more and most images."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c", "#f0e442")
"""Of Okabe and Ito, which people with colour-blindness tell apart."""

TITLE, TEXT, SMALL = 23, 18, 14
CELL_WIDTH, CELL_HEIGHT = 78, 54
MAP_WIDTH, MIN_MAP_HEIGHT, MAX_MAP_HEIGHT = 760, 560, 1500
TOTALS_WIDTH = 220
GAP = 16
SMOOTHING = 4
"""Magnification at which a circle is drawn, because Pillow draws circles with rough edges."""


def partition_picture(
    counts_KC: NDArray[Any], path: Path, class_names: Sequence[str], backbones: Sequence[str]
) -> None:
    """Draws the classes of every client, with backbone and number of images, as a PNG.

    Args:
        counts_KC: training images by client and class.
        path: the PNG file to write; its name may have any suffix.
        class_names: class names, in class order.
        backbones: backbone names, in client order.
    """
    counts_KC = np.asarray(counts_KC)
    num_clients, num_classes = counts_KC.shape
    has_bubbles = num_clients <= MAX_BUBBLE_ROWS and num_classes <= MAX_BUBBLE_COLUMNS
    width = CELL_WIDTH * max(num_classes, 6) if has_bubbles else MAP_WIDTH
    height = CELL_HEIGHT * max(num_clients, 3) if has_bubbles else _within(8 * num_clients)
    clients = [f"{name}  {client}" for client, name in enumerate(backbones)] if has_bubbles else []
    classes = list(class_names) if num_classes <= MAX_BUBBLE_COLUMNS else []
    is_slanted = any(_length(name) > CELL_WIDTH - 8 if has_bubbles else len(name) > 4 for name in classes)
    legend = {kind: f"{kind} ({backbones.count(kind)})" for kind in dict.fromkeys(backbones)}

    left = 3 * GAP + TEXT + max(map(_length, clients), default=0)
    top = 3 * GAP + TITLE
    totals = left + width + GAP
    below = GAP + (max(map(_length, classes)) if is_slanted else TEXT)
    size = (
        totals + TOTALS_WIDTH + 5 * GAP + max(_length(text) for text in [*legend.values(), "backbone"]),
        top + max(height + below + 2 * TEXT + (0 if has_bubbles else 4 * GAP), (len(legend) + 2) * (TEXT + GAP // 2)),
    )
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    title = f"{counts_KC.sum():,d} training images of {num_classes} classes on {num_clients} clients"
    draw.text((size[0] / 2, GAP), title, INK, _font(TITLE), anchor="mt")
    if has_bubbles:
        _draw_bubbles(picture, counts_KC, (left, top, width, height))
    else:
        shades_KC3 = _shades(np.sqrt(counts_KC / max(1, counts_KC.max())))
        shades_KC3[counts_KC == 0] = 255
        picture.paste(Image.fromarray(shades_KC3).resize((width, height), Image.Resampling.NEAREST), (left, top))
        _draw_scale(picture, int(counts_KC.max()), (left, top + height + below + 2 * TEXT))
    for client, label in enumerate(clients):
        draw.text((left - GAP, top + (client + 0.5) * height / num_clients), label, INK, _font(TEXT), anchor="rm")
    for index, label in enumerate(classes):
        middle = left + (index + 0.5) * width / num_classes
        if is_slanted:
            _draw_upright(picture, label, (middle, top + height + GAP // 2))
        else:
            draw.text((middle, top + height + GAP // 2), label, INK, _font(TEXT), anchor="ma")
    draw.text((left + width / 2, top + height + below + TEXT // 2), "class", INK, _font(TEXT), anchor="mt")
    _draw_upright(picture, "client", (GAP + TEXT / 2, top + height / 2), is_centred=True)
    colours = {kind: COLOURS[index % len(COLOURS)] for index, kind in enumerate(legend)}
    _draw_totals(draw, counts_KC.sum(axis=1), [colours[kind] for kind in backbones], (totals, top, height))
    draw.text((totals + TOTALS_WIDTH / 2, top + height + below + TEXT // 2), "images", INK, _font(TEXT), anchor="mt")
    _draw_legend(draw, {text: colours[kind] for kind, text in legend.items()}, (totals + TOTALS_WIDTH + GAP, top))
    picture.save(path, format="PNG")


def _within(height: int) -> int:
    return int(np.clip(height, MIN_MAP_HEIGHT, MAX_MAP_HEIGHT))


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _length(text: str) -> int:
    return int(_font(TEXT).getlength(text)) + 1


def _shades(shares: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns the colour of each share from 0 to 1, with a last dimension of red, green and blue."""
    places = np.linspace(0, 1, len(SHADES))
    return np.stack([np.interp(shares, places, SHADES[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


def _draw_bubbles(picture: Image.Image, counts_KC: NDArray[Any], box: tuple[int, int, int, int]) -> None:
    """Draws a circle with a number for each client and class; the area of a circle is the number of images."""
    left, top, width, height = box
    num_clients, num_classes = counts_KC.shape
    row, column = height / num_clients, width / num_classes
    draw = ImageDraw.Draw(picture)
    # Lines between the rows keep the small numbers legible.
    for client in range(num_clients + 1):
        draw.line((left, top + client * row, left + width, top + client * row), FAINT)
    most = 0.42 * CELL_HEIGHT
    for client, label in zip(*np.nonzero(counts_KC), strict=True):
        radius = max(1, round(most * float(np.sqrt(counts_KC[client, label] / counts_KC.max()))))
        middle = (left + (label + 0.5) * column, top + (client + 0.5) * row)
        side = (2 * radius + 1) * SMOOTHING
        disc = Image.new("L", (side, side))
        ImageDraw.Draw(disc).ellipse((0, 0, side - 1, side - 1), fill=255)
        picture.paste(BUBBLE, (int(middle[0]) - radius, int(middle[1]) - radius), disc.reduce(SMOOTHING))
        draw.text(middle, f"{counts_KC[client, label]:d}", INK, _font(SMALL), anchor="mm")


def _draw_scale(picture: Image.Image, most: int, corner: tuple[int, int]) -> None:
    """Draws the shades of a heat map with their numbers of images."""
    left, top = corner
    draw, half = ImageDraw.Draw(picture), MAP_WIDTH // 2
    left += MAP_WIDTH // 4
    bar = _shades(np.sqrt(np.linspace(0, 1, half)))[None].repeat(GAP // 2, axis=0)
    picture.paste(Image.fromarray(bar), (left, top + GAP // 2))
    for number in sorted({round(most * part / 4) for part in range(5)}):
        place = left + half * number / max(1, most)
        draw.text((place, top + GAP + GAP // 2), str(number), INK, _font(SMALL), anchor="mt")
    draw.text((left - GAP, top + GAP - GAP // 4), "training images", INK, _font(SMALL), anchor="rm")


def _draw_totals(
    draw: ImageDraw.ImageDraw, totals_K: NDArray[Any], colours: Sequence[str], box: tuple[int, int, int]
) -> None:
    """Draws a bar for each client, whose length is the number of images."""
    left, top, height = box
    row, most = height / len(totals_K), max(1, int(totals_K.max()))
    for client, (total, colour) in enumerate(zip(totals_K.tolist(), colours, strict=True)):
        begin, end = top + (client + 0.1) * row, top + (client + 0.9) * row
        draw.rectangle((left, begin, left + TOTALS_WIDTH * total / most, max(begin, end)), colour)
    for number in sorted({0, most // 2, most}):
        place = (left + TOTALS_WIDTH * number / most, top + height + GAP // 2)
        draw.text(place, str(number), INK, _font(TEXT), anchor="mt")


def _draw_legend(draw: ImageDraw.ImageDraw, colours: dict[str, str], corner: tuple[int, int]) -> None:
    left, top = corner
    draw.text((left + GAP, top), "backbone", INK, _font(TEXT), anchor="lt")
    for row, (text, colour) in enumerate(colours.items(), start=1):
        middle = top + row * (TEXT + GAP // 2) + TEXT // 2
        draw.rectangle((left + GAP, middle - 6, left + 3 * GAP, middle + 6), colour)
        draw.text((left + 3 * GAP + GAP // 2, middle), text, INK, _font(TEXT), anchor="lm")


def _draw_upright(picture: Image.Image, text: str, place: tuple[float, float], *, is_centred: bool = False) -> None:
    """Draws a text that runs from the bottom to the top: with its end at a place, or its middle."""
    width, height = _length(text), TEXT + 4
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((0, height / 2), text, 255, _font(TEXT), anchor="lm")
    top = place[1] - (width / 2 if is_centred else 0)
    picture.paste(INK, (int(place[0] - height / 2), int(top)), mask.transpose(Image.Transpose.ROTATE_90))
