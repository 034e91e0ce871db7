"""Draws pictures into the run folder: the partition once, generated images every few rounds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedvtc.reporting.partition_picture import partition_picture
from fedvtc.reporting.sample_grid import sample_grid
from fedvtc.storage.atomic import replaced
from fedvtc.tracking.base import RunInfo, Tracker


class PictureTracker(Tracker):
    """Writes partition.png and samples/round_000010.png; a failed write leaves no partial file.

    Args:
        class_names: class names of the data set, in class order.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._folder = Path()

    def start(self, run: RunInfo) -> None:
        """Draws the partition, unless an earlier attempt of the run has drawn it."""
        self._folder = run.folder / "samples"
        path = run.folder / "partition.png"
        if not path.exists():
            with replaced(path) as beside:
                partition_picture(run.class_counts_KC, beside, self._class_names, run.backbones)

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Draws one row of images per class."""
        self._folder.mkdir(exist_ok=True)
        rows = [self._class_names[label] for label in dict.fromkeys(labels_N)]
        with replaced(self._folder / f"round_{round:06d}.png") as beside:
            sample_grid(images_NCHW, beside, rows)
