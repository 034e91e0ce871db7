"""Writes the privacy measures of a run, and builds their table."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from fedvtc.commands.privacy.measuring import MEASURES, Case, Privacy
from fedvtc.federation.finished import FinishedRun
from fedvtc.reporting.sample_grid import sample_grid
from fedvtc.storage.records import plain


def save(found: Privacy, run: FinishedRun, folder: Path) -> None:
    """Writes privacy.json, clients.csv, and a picture of the worst cases of each kind."""
    about = {
        "run": {"id": run.folder.id, "name": run.folder.name, "method": run.config.method.name},
        "measures": {name: {"value": plain(value), "meaning": MEASURES[name]} for name, value in found.values.items()},
        "clients": plain(found.clients),
    }
    (folder / "privacy.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with (folder / "clients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found.clients[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.clients)
    for name, cases in (("copies.png", found.copies), ("inversions.png", found.inversions)):
        if cases:
            _picture(cases, folder / name)


def measures_table(found: Privacy) -> Table:
    """Returns a table with a row for each measure: name, value, meaning."""
    table = Table("measure", "value", "meaning")
    for name, value in found.values.items():
        table.add_row(name, f"{value:.3f}", MEASURES[name])
    return table


def _picture(cases: Sequence[Case], path: Path) -> None:
    images_NCHW = np.stack([image for case in cases for image in case.images])
    sample_grid(images_NCHW, path, [case.text for case in cases])
