"""Turns records into named numbers and pictures for trackers that draw curves."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedvtc.config.schema import Config
from fedvtc.reporting.sample_grid import sample_grid
from fedvtc.storage.records import plain

TOTAL_MB = "bytes/total_mb"
"""Name of the megabytes that all participants together have sent and received since round 1."""


class Series:
    """Turns the records of a run into numbers by name; adds up bytes, so needs every record from the first on."""

    def __init__(self) -> None:
        self._num_bytes = 0

    def take(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Returns the numbers of one record and `TOTAL_MB`; names of the final record start with `final/`."""
        values = numbers(record)
        self._num_bytes += sum(value for name, value in values.items() if name.startswith(("bytes/up/", "bytes/down/")))
        values[TOTAL_MB] = self._num_bytes / 1e6
        return {f"{prefix_of(record)}{name}": value for name, value in values.items()}


def prefix_of(record: Mapping[str, Any]) -> str:
    """Returns `final/` for the final record, so that curves over rounds end with the last round; else an empty text."""
    return "final/" if record["phase"] == "final" else ""


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the finite numbers of a record by name."""
    return {name: value for name, value in plain(record).items() if isinstance(value, int | float)}


def shows_clients(config: Config, record: Mapping[str, Any]) -> bool:
    """Returns True if trackers show the evaluation of a record by client, see `tracking.clients_every`."""
    if record["phase"] == "final":
        return True
    round, every = record["round"], config.tracking.clients_every
    evaluated_before = (round - 1) // config.evaluate.every * config.evaluate.every
    return bool(round // every > evaluated_before // every)


def sample_picture(images_NCHW: NDArray[np.uint8], labels_N: Sequence[int], class_names: Sequence[str]) -> Image.Image:
    """Draws generated images as one picture with a row per class."""
    file = io.BytesIO()
    sample_grid(images_NCHW, file, [class_names[label] for label in dict.fromkeys(labels_N)])
    return Image.open(file)
