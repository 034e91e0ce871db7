"""Reads run.json and config.yaml of a run folder and checks them before use."""

import json
from pathlib import Path
from typing import Any

import yaml

from fedvtc.config.naming import is_folder_name
from fedvtc.errors import RunFolderError
from fedvtc.storage.run_id import RUN_ID

STATUSES = ("running", "finished", "failed", "interrupted")


def read_description(path: Path) -> dict[str, Any]:
    """Reads and checks the run.json of a run folder.

    Raises:
        RunFolderError: if the folder is missing or has no run.json, or its run.json is damaged.
    """
    file = path / "run.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = "not a run folder (no run.json)" if path.is_dir() else "no such folder"
        raise RunFolderError(f"{path}: {found}. Name the folder of a run; `fedvtc list runs` shows them.") from None
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be read ({error.strerror}). Make the file readable.") from None
    except ValueError as error:
        raise _damaged(file, str(error)) from None
    fault = _fault(description)
    if fault:
        raise _damaged(file, fault)
    checked: dict[str, Any] = description
    return checked


def config_layer(folder: Path) -> Path:
    """Returns the path of a run folder's config.yaml after a check that the file refers to nothing else.

    A run writes a resolved config. References to other values (`${...}`) or files (`include`) were added later, and
    could copy environment variables of the user who resumes the run into its files.

    Raises:
        RunFolderError: if the file is missing, damaged, or refers to other values or files.
    """
    file = folder / "config.yaml"
    try:
        text = file.read_text(encoding="utf-8")
        # Tokens hold unescaped text, so that an escaped "\x24{" is found too.
        foreign = any("${" in token.value for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken))
        content = yaml.safe_load(text)
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be read ({error.strerror}). Make the file readable.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(file, "expected keys with values")
    if foreign or "include" in content:
        found = "${...}" if foreign else "an include"
        raise RunFolderError(f"{file}: holds {found}, which no run writes. Put the value itself in its place.")
    return file


def _damaged(file: Path, reason: str) -> RunFolderError:
    reason = " ".join(reason.split()).rstrip(".")
    return RunFolderError(f"{file}: damaged ({reason}). Repair the file, or start a new run under another run.name.")


def _fault(description: object) -> str | None:
    """Returns the first fault of a parsed run.json; None if run.json describes a run."""
    if not isinstance(description, dict):
        return "expected keys with values"
    for key in ("id", "name", "status"):
        if not isinstance(description.get(key), str):
            return f"expected a text as {key}"
    # Id and name become parts of paths under which checkpoints are written and deleted.
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
