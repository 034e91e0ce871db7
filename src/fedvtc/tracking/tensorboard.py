"""Writes a run into TensorBoard's event files."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fedvtc.storage.records import clients_of, records_up_to
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.series import Series, prefix_of, sample_picture, shows_clients

FOLDER = "tensorboard"
# Histograms show accuracies, which lie between 0 and 1.
BINS = np.linspace(0, 1, 21)


class TensorBoardTracker(Tracker):
    """Writes event files with the round as step; a resumed run hides the steps of earlier attempts that it repeats.

    The final record is a step after the last round, so that a resumed run hides an earlier final record too.

    Args:
        class_names: class names of the data set, in class order.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._series = Series()
        self._writer: EventsWriter | None = None

    def start(self, run: RunInfo) -> None:
        """Opens an event file of this attempt; writes earlier rounds too if the run folder has no event file yet."""
        self._config = run.config
        folder = run.folder / FOLDER
        has_events = any(folder.glob("events*"))
        folder.mkdir(exist_ok=True)
        # Two attempts in one second would get the same name.
        suffix = f".{time.time_ns()}"
        # The writer beneath tensorboardX' SummaryWriter, which writes in a thread that its `flush` does not wait for:
        # a killed run lost numbers.
        self._writer = EventsWriter(str(folder / "events"), suffix)
        earlier = records_up_to(run.folder, run.resumed_round or 0)
        rows = clients_of(run.folder, (record["round"] for record in earlier))
        for record, clients in zip(earlier, rows, strict=True):
            if has_events:
                self._series.take(record)
            else:
                # The run took over the round from another run, or an earlier attempt ran without this tracker.
                self.log(record, clients)
        if run.resumed_round is not None:
            self._write(run.resumed_round + 1, session_log=SessionLog(status=SessionLog.START))

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Writes every number of the record to disk at once."""
        assert self._writer is not None
        step = record["round"] + (record["phase"] == "final")
        for name, value in self._series.take(record).items():
            if name not in ("round", "final/round"):
                self._write(step, summary=summary.scalar(name, value))
        if clients and shows_clients(self._config, record):
            accuracies = np.array([client["accuracy"] for client in clients])
            self._write(step, summary=summary.histogram(f"{prefix_of(record)}clients/accuracy", accuracies, BINS))
        if record.get("incidents"):
            self._write(step, summary=summary.text("incidents", "\n\n".join(record["incidents"])))
        self._writer.flush()

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Writes the images as one picture."""
        picture = np.asarray(sample_picture(images_NCHW, labels_N, self._class_names))
        self._write(round, summary=summary.image("samples", picture, dataformats="HWC"))

    def finish(self, status: str) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        assert self._writer is not None
        self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
