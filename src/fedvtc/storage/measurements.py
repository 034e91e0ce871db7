"""Removes the measurements of a run's final models by `fedvtc evaluate`, `fedvtc privacy` and `fedvtc features`."""

import shutil
from pathlib import Path

from fedvtc.storage.evaluations import EVALUATIONS_FILE
from fedvtc.storage.features import FEATURES_FOLDER
from fedvtc.storage.privacy import PRIVACY_FOLDER


def remove_measurements(run: Path) -> list[str]:
    """Deletes the measurements in a run folder; after a crash meanwhile, a second call deletes the rest.

    Returns:
        The deleted names: evaluations.csv, `privacy/` and `features/`, as far as present.

    Raises:
        OSError: a file cannot be deleted.
    """
    removed = []
    if (run / EVALUATIONS_FILE).is_file():
        (run / EVALUATIONS_FILE).unlink()
        removed.append(EVALUATIONS_FILE)
    for name in (PRIVACY_FOLDER, FEATURES_FOLDER):
        if (run / name).is_dir():
            shutil.rmtree(run / name)
            removed.append(f"{name}/")
    return removed
