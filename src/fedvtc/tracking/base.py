"""The contract of a tracker: the calls it gets, and the facts about a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import Config


@dataclass(frozen=True, eq=False)
class RunInfo:
    """Facts about a run that trackers get before the first round.

    Attributes:
        id: unique id of the run.
        name: name of the run folder.
        folder: path of the run folder.
        config: the resolved config.
        config_dict: the resolved config as plain dicts, lists and values.
        class_counts_KC: training images by client and class.
        backbones: backbone names, in client order.
        resumed_round: the last round before the resume, 0 if the run starts over; None for a new run.
        checkpoints: folder or URL of the run's checkpoints; None if unknown.
    """

    id: str
    name: str
    folder: Path
    config: Config
    config_dict: Mapping[str, Any]
    class_counts_KC: NDArray[np.int64]
    backbones: Sequence[str]
    resumed_round: int | None = None
    checkpoints: str | None = None


class Tracker:
    """Receives the records of a run. A subclass overrides the methods that it needs; all others do nothing."""

    @property
    def num_waiting(self) -> int:
        """Number of lines that could not be written yet and wait in memory."""
        return 0

    def start(self, run: RunInfo) -> None:
        """Prepares for the run; called once, before the first record.

        A resumed run passes the records after `run.resumed_round` again, so a tracker deletes these records here.
        """

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Receives the progress of a step: `client` is the `num_done`-th of `num_total` clients to finish the step."""

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Receives one record: after each round (`phase` is `round`) and at the end (`phase` is `final`).

        Args:
            record: `round`, `phase` and the metrics of `fedvtc.learning.metrics`.
            clients: one mapping per client if the record holds an evaluation, else empty.
        """

    def log_confusions(self, record: Mapping[str, Any], confusions: Mapping[str, NDArray[np.uint32]]) -> None:
        """Receives the confusion matrices of an evaluation, before `log` receives its record.

        Args:
            record: the record of the evaluation.
            confusions: image counts (clients, classes, classes) of the test set by predictor; the name of the predictor
                that the run is ranked by is empty. Rows are true classes, columns predicted ones.
        """

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Receives generated images, grouped by label, with equal numbers of images per label."""

    def finish(self, status: str) -> None:
        """Closes the tracker; called once at the end of the run.

        Args:
            status: `finished`, `failed` or `interrupted`.
        """
