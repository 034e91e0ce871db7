"""The run.json and the config.yaml of a run folder, checked before they are believed."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from fedvtc.config.naming import is_folder_name
from fedvtc.errors import RunFolderError

STATUSES = ("running", "finished", "failed", "interrupted")
RUN_ID = re.compile("[0-9a-f]{8}")
"""What the id of a run is."""


def read_description(path: Path) -> dict[str, Any]:
    """What the run.json of a folder says.

    Raises:
        RunFolderError: if the folder is absent, holds no run, or its run.json is damaged.
    """
    file = path / "run.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = "not a run folder, it has no run.json" if path.is_dir() else "no such folder"
        raise RunFolderError(f"{path}: {found}. Name the folder of a run; `fedvtc list runs` shows them.") from None
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be read ({error.strerror}). Make it readable.") from None
    # Brackets in brackets, a thousand deep, are JSON too.
    except (ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from None
    fault = _fault(description)
    if fault:
        raise _damaged(file, fault)
    checked: dict[str, Any] = description
    return checked


def config_layer(folder: Path) -> Path:
    """The path of a folder's config.yaml, after a check that it says all by itself.

    A run writes its config resolved. What refers to other values (`${...}`) or files (`include`) was put there
    later, and could bring the environment of whoever resumes the run into its files.

    Raises:
        RunFolderError: if it is absent, damaged or refers to something else.
    """
    file = folder / "config.yaml"
    try:
        text = file.read_text(encoding="utf-8")
        # Tokens hold the text as it is meant: an escaped "\x24{" is found too.
        foreign = any("${" in token.value for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken))
        content = yaml.safe_load(text)
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be read ({error.strerror}). Make it readable.") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(file, "expected keys with values")
    if foreign or "include" in content:
        what = "holds ${...}" if foreign else "holds an include"
        raise RunFolderError(f"{file}: {what}, which no run writes. Put the value itself in its place.")
    return file


def _damaged(file: Path, reason: str) -> RunFolderError:
    what = " ".join(reason.split()).rstrip(".")
    return RunFolderError(f"{file}: damaged ({what}). Mend it, or begin a new run under another run.name.")


def _fault(description: object) -> str | None:
    """What keeps parsed JSON from being the description of a run."""
    if not isinstance(description, dict):
        return "expected keys with values"
    for key in ("id", "name", "status"):
        if not isinstance(description.get(key), str):
            return f"expected a text as {key}"
    # They name folders in which checkpoints are written and deleted.
    if not RUN_ID.fullmatch(description["id"]):
        return "expected 8 hex digits as id"
    if not is_folder_name(description["name"]):
        return "expected the name of one folder as name"
    if description["status"] not in STATUSES:
        return f"unknown status {description['status']}"
    attempts = description.get("attempts")
    if not isinstance(attempts, list) or not all(isinstance(attempt, dict) for attempt in attempts):
        return "expected a list of attempts"
    if not attempts:
        return "expected at least one attempt"
    for attempt in attempts:
        counts = attempt.get("incidents", {})
        if not (isinstance(counts, dict) and all(type(count) is int for count in counts.values())):
            return "expected counts as incidents"
    return None
