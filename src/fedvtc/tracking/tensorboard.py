"""Writes a run into TensorBoard's event files."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from fedvtc.storage.records import records_up_to
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.series import Series, prefix_of, sample_picture, shows_clients

FOLDER = "tensorboard"


class TensorBoardTracker(Tracker):
    """Writes event files with the round as step; a resumed run hides the steps of earlier attempts that it repeats.

    The final record is a step after the last round, so that a resumed run hides an earlier final record too.

    Args:
        class_names: class names of the data set, in class order.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._series = Series()
        self._writer: SummaryWriter | None = None

    def start(self, run: RunInfo) -> None:
        """Opens an event file of this attempt."""
        self._config = run.config
        for record in records_up_to(run.folder, run.resumed_round or 0):
            self._series.take(record)
        self._writer = SummaryWriter(
            logdir=str(run.folder / FOLDER),
            purge_step=None if run.resumed_round is None else run.resumed_round + 1,
            # Two attempts in one second would get the same name.
            filename_suffix=f".{time.time_ns()}",
        )

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Writes every number of the record to disk at once."""
        assert self._writer is not None
        step = record["round"] + (record["phase"] == "final")
        for name, value in self._series.take(record).items():
            if name not in ("round", "final/round"):
                self._writer.add_scalar(name, value, step)
        if clients and shows_clients(self._config, record):
            accuracies = np.array([client["accuracy"] for client in clients])
            self._writer.add_histogram(f"{prefix_of(record)}clients/accuracy", accuracies, step)
        if record.get("incidents"):
            self._writer.add_text("incidents", "\n\n".join(record["incidents"]), step)
        self._writer.flush()

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Writes the images as one picture."""
        assert self._writer is not None
        picture = np.asarray(sample_picture(images_NCHW, labels_N, self._class_names))
        self._writer.add_image("samples", picture, round, dataformats="HWC")

    def finish(self, status: str) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
