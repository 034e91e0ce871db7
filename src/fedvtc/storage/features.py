"""Writes and reads the points of `fedvtc features`: projections of features, one row a point."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FEATURES_FOLDER = "features"
REAL_FILE = "real.png"
POINTS_FILE = "points.csv"
POSITIONS = ("pca/x", "pca/y", "tsne/x", "tsne/y")
"""Columns with positions; the other columns describe the point."""
COLUMNS = ("client", "backbone", "models", "images", "class", *POSITIONS)


def save_points(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Writes points.csv into a folder; positions have five digits.

    Raises:
        OSError: the file cannot be written.
    """
    with (folder / POINTS_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for point in points:
            writer.writerow(dict(point) | {name: f"{point[name]:.5g}" for name in POSITIONS})


def read_points(run: Path) -> list[dict[str, Any]]:
    """Returns the points in `features/` of a run folder; none if the file is missing or damaged."""
    with (
        suppress(OSError, ValueError, csv.Error),
        (run / FEATURES_FOLDER / POINTS_FILE).open(encoding="utf-8", newline="") as file,
    ):
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) == COLUMNS:
            return [
                {**row, "client": int(row["client"]), **{name: float(row[name]) for name in POSITIONS}}
                for row in reader
            ]
    return []
