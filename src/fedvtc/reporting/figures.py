"""Draws figures of a run: the partition of classes over clients, and grids of generated images.

Uses matplotlib's object API without pyplot: no global state, no window, safe beside any backend. Names are drawn
literally: matplotlib would parse text between two dollar signs as mathematics.

Shape suffixes: K clients, C classes; images are NCHW.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_BUBBLE_ROWS = 40
MAX_BUBBLE_COLUMNS = 26
"""Larger partitions are drawn as a heat map instead of bubbles with numbers."""

INK, FAINT = "#222222", "#d9d9d9"
BUBBLE = "#9cc3ea"
SHADES = LinearSegmentedColormap.from_list("counts", ["#cfe2f3", "#5b9bd5", "#08306b"])

GRID_CELL = 56
"""Minimum size of an image in a sample grid, in pixels; smaller images are magnified by whole factors."""
GRID_GAP = 4


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
    bubbles = num_clients <= MAX_BUBBLE_ROWS and num_classes <= MAX_BUBBLE_COLUMNS
    width = 3.6 + (0.52 * max(num_classes, 6) if bubbles else 7.0)
    height = 1.5 + (0.36 * max(num_clients, 3) if bubbles else float(np.clip(0.05 * num_clients, 4.5, 11.0)))
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    classes, images = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1.2])
    if bubbles:
        _draw_bubbles(classes, counts_KC)
    else:
        seen_KC = np.ma.masked_equal(counts_KC, 0)
        shade = classes.imshow(seen_KC, aspect="auto", cmap=SHADES, norm=PowerNorm(0.5, vmin=0), interpolation="none")
        bar = figure.colorbar(shade, ax=classes, location="bottom", shrink=0.5, aspect=40, pad=0.01)
        bar.set_label("training images", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.locator = MaxNLocator(4, integer=True)
        bar.outline.set_visible(False)
    _name_axes(classes, class_names, backbones if bubbles else [])
    _draw_totals(images, counts_KC.sum(axis=1), backbones)
    title = f"{counts_KC.sum():,d} training images of {num_classes} classes on {num_clients} clients"
    figure.suptitle(title, fontsize=11, color=INK)
    # Not savefig, which draws the whole figure twice.
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).save(path, format="PNG")


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


def _draw_bubbles(axes: Axes, counts_KC: NDArray[Any]) -> None:
    clients, labels = np.nonzero(counts_KC)
    counts = counts_KC[clients, labels]
    axes.scatter(labels, clients, s=420 * counts / counts_KC.max(), color=BUBBLE, linewidths=0)
    for client, label, count in zip(clients.tolist(), labels.tolist(), counts.tolist(), strict=True):
        number = axes.text(label, client, f"{count:d}", ha="center", va="center_baseline", fontsize=6.5, color=INK)
        # The numbers lie inside the axes; the layout would measure each of them twice.
        number.set_in_layout(False)
    # Lines between the rows keep the small numbers legible.
    axes.hlines(np.arange(len(counts_KC) + 1) - 0.5, -0.5, counts_KC.shape[1] - 0.5, color=FAINT, linewidth=0.5)
    axes.set_ylim(len(counts_KC) - 0.5, -0.5)
    axes.set_xlim(-0.5, counts_KC.shape[1] - 0.5)


def _name_axes(axes: Axes, class_names: Sequence[str], backbones: Sequence[str]) -> None:
    """Labels every class if the names fit, and every client if backbones are given."""
    axes.set_xlabel("class", fontsize=9)
    axes.set_ylabel("client", fontsize=9)
    if len(class_names) <= MAX_BUBBLE_COLUMNS:
        slanted = max(map(len, class_names)) > 4
        axes.set_xticks(range(len(class_names)), class_names, rotation=45 if slanted else 0, parse_math=False)
        if slanted:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
    if backbones:
        labels = [f"{name}  {client}" for client, name in enumerate(backbones)]
        axes.set_yticks(range(len(backbones)), labels, parse_math=False)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _draw_totals(axes: Axes, totals_K: NDArray[Any], backbones: Sequence[str]) -> None:
    kinds = list(dict.fromkeys(backbones))
    palette = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "tab20"]
    colours = {kind: palette(index % palette.N) for index, kind in enumerate(kinds)}
    axes.barh(range(len(totals_K)), totals_K, height=0.8, color=[colours[kind] for kind in backbones])
    axes.set_xlabel("images", fontsize=9)
    axes.tick_params(length=0, labelsize=8)
    axes.locator_params(axis="x", nbins=3, integer=True)
    axes.tick_params(axis="y", labelleft=False)
    axes.spines[:].set_visible(False)
    legend = axes.legend(
        handles=[Patch(color=colour, label=f"{kind} ({backbones.count(kind)})") for kind, colour in colours.items()],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
        title="backbone",
        title_fontsize=9,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
