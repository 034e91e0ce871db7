"""Measures a run into a folder, and builds the table of the measures."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from fedvtc.commands.finished import new_folder
from fedvtc.commands.privacy.measuring import IMAGES_PER_CLASS, MEASURES, Case, Privacy, measure
from fedvtc.federation.finished import FinishedRun, finished_run
from fedvtc.reporting.sample_grid import sample_grid
from fedvtc.storage.privacy import MEASURES_FILE
from fedvtc.storage.records import plain


def measure_into(
    output: Path,
    run: Path,
    overrides: Sequence[str] = (),
    *,
    clients: Sequence[int] | None = None,
    images_per_class: int = IMAGES_PER_CLASS,
    trusted: bool = False,
    fix: str = "Name a new folder: -o DIR.",
) -> Privacy:
    """Measures a finished run, writes the measures into a new folder, and returns the measures.

    Args:
        output: the new folder.
        run: the run folder.
        overrides: `key=value` of keys that may change, such as `data.root`.
        clients: numbers of clients; None measures all clients.
        images_per_class: generated images of each class.
        trusted: open the run even if its folder belongs to another user.
        fix: the user's way out, if `output` exists or cannot be written.

    Raises:
        UserError: the run is not finished or cannot be read, its data set is absent, or `output` cannot be written.
    """
    with finished_run(run, overrides, trusted=trusted) as opened, new_folder(output, fix) as folder:
        found = measure(opened, clients=clients, images_per_class=images_per_class)
        _save(found, opened, folder)
    return found


def measures_table(found: Privacy) -> Table:
    """Returns a table with a row for each measure: name, value, meaning."""
    table = Table("measure", "value", "meaning")
    for name, value in found.values.items():
        table.add_row(name, f"{value:.3f}", MEASURES[name])
    return table


def _save(found: Privacy, run: FinishedRun, folder: Path) -> None:
    """Writes privacy.json, clients.csv, and a picture of the worst cases of each kind."""
    about = {
        "run": {"id": run.folder.id, "name": run.folder.name, "method": run.config.method.name},
        "measures": {name: {"value": plain(value), "meaning": MEASURES[name]} for name, value in found.values.items()},
        "clients": plain(found.clients),
    }
    (folder / MEASURES_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with (folder / "clients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found.clients[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.clients)
    for name, cases in (("copies.png", found.copies), ("inversions.png", found.inversions)):
        if cases:
            _picture(cases, folder / name)


def _picture(cases: Sequence[Case], path: Path) -> None:
    images_NCHW = np.stack([image for case in cases for image in case.images])
    sample_grid(images_NCHW, path, [case.text for case in cases])
