"""The id of the W&B run of a run folder. A copy of a folder is another W&B run, a moved folder the same."""

import json
import secrets
from pathlib import Path

from fedvtc.storage.atomic import replaced
from fedvtc.tracking.base import RunInfo


def kept_id(run: RunInfo) -> str:
    """Returns the id of the W&B run that the folder continues: the run's id, or the id in `wandb/id`.

    A folder whose earlier place still holds the run is a copy: it gets an id of its own, because the rounds of two runs
    in one curve would be a mixture.
    """
    file, place = run.folder / "wandb" / "id", run.folder / "wandb" / "folder"
    if place.is_file() and _holds_original(Path(place.read_text(encoding="utf-8")), run):
        return secrets.token_hex(4)
    return file.read_text(encoding="utf-8") if file.is_file() else run.id


def keep_id(run: RunInfo, chosen: str) -> None:
    """Saves the id and the place of the folder; the agent of a W&B sweep chooses another id than the run's."""
    folder = run.folder / "wandb"
    if chosen != run.id or (folder / "id").is_file():
        with replaced(folder / "id") as beside:
            beside.write_text(chosen, encoding="utf-8")
    with replaced(folder / "folder") as beside:
        beside.write_text(str(run.folder.absolute()), encoding="utf-8")


def _holds_original(earlier: Path, run: RunInfo) -> bool:
    """Returns True if `earlier` is another folder with the same run; False if `earlier` is missing or unreadable."""
    try:
        description = json.loads((earlier / "run.json").read_text(encoding="utf-8"))
        # Paths are not compared as texts: a link leads to the same folder by another path.
        return str(description["id"]) == run.id and not earlier.samefile(run.folder)
    except (OSError, ValueError, TypeError, KeyError):
        return False
