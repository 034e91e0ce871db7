"""The data report in a plan: facts, images by class, and everything odd about the data."""

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.data import DataReport

_CLASSES_SHOWN = 12


def data_lines(report: DataReport) -> list[str]:
    """Returns a line of facts, a line on the images by class, and a line for each note."""
    return [f"Data: {report.facts}.", _classes_line(report), *(f"Data: {note}." for note in report.notes)]


def _classes_line(report: DataReport) -> str:
    train_C, test_C = report.train_counts_C, report.test_counts_C
    if len(report.class_names) <= _CLASSES_SHOWN:
        names = zip(report.class_names, train_C.tolist(), test_C.tolist(), strict=True)
        counts = ", ".join(f"{name} {train}/{test}" for name, train, test in names)
        return f"Data: training/test images by class: {counts}."
    return f"Data: {_span(train_C)} training images and {_span(test_C)} test images by class."


def _span(counts_C: NDArray[np.int64]) -> str:
    least, most = counts_C.min(), counts_C.max()
    return f"{least:,} to {most:,}" if least < most else f"{most:,}"
