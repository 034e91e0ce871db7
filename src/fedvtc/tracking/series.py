"""What trackers of curves make of a record: numbers by name, megabytes so far, which clients and images are shown."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedvtc.config.schema import Config
from fedvtc.reporting.figures import sample_grid
from fedvtc.storage.records import plain

TOTAL_MB = "bytes/total_mb"
"""Megabytes that all participants together have sent and received since round 1."""


class Series:
    """Turns the records of a run, from its first on, into numbers by name."""

    def __init__(self) -> None:
        self._num_bytes = 0

    def take(self, record: Mapping[str, Any]) -> dict[str, float]:
        """The numbers of one record, with `TOTAL_MB`; those of the end under `final/`, so that curves end before it."""
        values = numbers(record)
        self._num_bytes += sum(value for name, value in values.items() if name.startswith(("bytes/up/", "bytes/down/")))
        values[TOTAL_MB] = self._num_bytes / 1e6
        return {f"{prefix_of(record)}{name}": value for name, value in values.items()}


def prefix_of(record: Mapping[str, Any]) -> str:
    """What stands before the names of a record: curves over rounds end before the end of the run."""
    return "final/" if record["phase"] == "final" else ""


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record is a finite number, under its own name."""
    return {name: value for name, value in plain(record).items() if isinstance(value, int | float)}


def shows_clients(config: Config, record: Mapping[str, Any]) -> bool:
    """Whether the evaluation of a record is shown client by client: see `tracking.clients_every`."""
    if record["phase"] == "final":
        return True
    round, every = record["round"], config.tracking.clients_every
    evaluated_before = (round - 1) // config.evaluate.every * config.evaluate.every
    return bool(round // every > evaluated_before // every)


def sample_picture(images_NCHW: NDArray[np.uint8], labels_N: Sequence[int], class_names: Sequence[str]) -> Image.Image:
    """Generated images as one picture, a row per class."""
    file = io.BytesIO()
    sample_grid(images_NCHW, file, [class_names[label] for label in dict.fromkeys(labels_N)])
    return Image.open(file)
