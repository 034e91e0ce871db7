"""The contract of a tracker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import Config


@dataclass(frozen=True, eq=False)
class RunInfo:
    """What a tracker may know of a run before its first round.

    Attributes:
        id: unique to the run.
        name: the run folder's name.
        folder: the run folder.
        config: the resolved config.
        config_dict: the same as plain dicts, lists and values.
        class_counts_KC: training images by client and class.
        backbones: architecture by client.
        resumed_round: the round after which a resumed run goes on, 0 where it starts over; None for a new run.
        checkpoints: where those of the run are, a folder or a URL; None where nobody knows.
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
    """Something that takes what a run has to say; a tracker defines the methods that it cares for."""

    @property
    def num_waiting(self) -> int:
        """Lines that could not be written yet and wait in memory."""
        return 0

    def start(self, run: RunInfo) -> None:
        """Called once, before the first record.

        What a tracker wrote after `run.resumed_round` is told to it again, so it drops it here.
        """

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """One client of the current step is done: the `num_done`-th of `num_total`."""

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Takes one record: of a round (`phase` is `round`) or of the end (`final`).

        Args:
            record: `round`, `phase` and the metrics of `fedvtc.learning.metrics`.
            clients: one mapping per client where the record holds an evaluation, else none.
        """

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Takes generated images, grouped by label, as many of each."""

    def finish(self, status: str) -> None:
        """Called once, however the run ended: `finished`, `failed` or `interrupted`."""
