"""Writes the confusion matrices of a run into its folder: confusion.npz."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.storage.confusions import Evaluated, add_confusions, cut_confusions, kept_every
from fedvtc.tracking.base import RunInfo, Tracker


class ConfusionTracker(Tracker):
    """Adds the confusion matrices of evaluations to confusion.npz.

    A run with many evaluations of many clients and classes keeps every n-th evaluation, the evaluation of the last
    round, and the final evaluation. A resumed run first removes the evaluations after the round of its checkpoint.
    A failed write raises an `OSError`; its matrices wait in memory and are written with the next ones.
    """

    def __init__(self) -> None:
        self._waiting: dict[Evaluated, NDArray[np.uint32]] = {}
        self._cut_after: int | None = None

    @property
    def num_waiting(self) -> int:
        """Arrays that wait in memory."""
        return len(self._waiting)

    def start(self, run: RunInfo) -> None:
        """Chooses the evaluations to keep; if the run is resumed, first removes later evaluations."""
        self._folder: Path = run.folder
        self._rounds, self._every = run.config.run.rounds, run.config.evaluate.every
        num_clients, num_classes = run.class_counts_KC.shape
        self._kept_every = kept_every(self._rounds // self._every, num_clients * num_classes**2)
        self._cut_after = run.resumed_round
        self._write()

    def log_confusions(self, record: Mapping[str, Any], confusions: Mapping[str, NDArray[np.uint32]]) -> None:
        """Adds the matrices of an evaluation, if the evaluation is kept."""
        round, is_final = record["round"], record["phase"] == "final"
        if self._kept_every is not None and (
            is_final or round == self._rounds or round // self._every % self._kept_every == 0
        ):
            for predictor, counts_KCC in confusions.items():
                self._waiting[Evaluated(None if is_final else round, predictor)] = counts_KCC
            self._write()

    def finish(self, status: str) -> None:
        """Writes the matrices that wait."""
        self._write()

    def _write(self) -> None:
        if self._cut_after is not None:
            cut_confusions(self._folder, self._cut_after)
            self._cut_after = None
        if self._waiting:
            add_confusions(self._folder, self._waiting)
            self._waiting.clear()
