"""Reads whole runs for figures: records, rows of clients, settings, and a group for runs that differ in the seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fedvtc.errors import FedvtcError, first_line
from fedvtc.reporting.run_folders import find_runs
from fedvtc.storage.records import client_lines, read_metrics
from fedvtc.storage.run_files import read_description
from fedvtc.storage.run_status import RunStatus, true_status

ACCURACY = "test/accuracy/mean"
UNRELATED = ("run.seed", "run.name", "run.output_dir", "run.resume", "method.label")
"""Keys that never set groups apart; sections of `UNRELATED_SECTIONS` neither."""
UNRELATED_SECTIONS = ("tracking", "placement", "cluster", "checkpoint", "runtime")
TEXT_COLUMNS = ("phase", "backbone")


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run, as read from its folder.

    Attributes:
        folder: the run folder.
        description: the parsed run.json.
        settings: values of config.yaml by dotted key.
        status: the true status.
        records: records of rounds, in order.
        final: the final record; None before the end.
        rows: rows of the newest evaluation of every client, numbers as floats, None for an empty cell.
        group: name of the group of runs that differ in their seed only.
        seed: `run.seed`.
    """

    folder: Path
    description: Mapping[str, Any]
    settings: Mapping[str, Any]
    status: RunStatus
    records: Sequence[Mapping[str, Any]]
    final: Mapping[str, Any] | None
    rows: Sequence[Mapping[str, Any]]
    group: str
    seed: str

    @property
    def name(self) -> str:
        """Group and seed, which name the run in a list of choices."""
        return f"{self.group}, seed {self.seed}"

    @property
    def method(self) -> str:
        """The method's label, or its name."""
        return str(self.settings.get("method.label") or self.settings.get("method.name", "?"))

    @property
    def measured(self) -> Mapping[str, Any]:
        """The newest record with an evaluation; empty before the first evaluation."""
        records = [*self.records, *([self.final] if self.final else [])]
        return next((record for record in reversed(records) if record.get(ACCURACY) is not None), {})

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in class order; empty for runs of version 0.1.0."""
        data = self.description.get("data")
        classes = data.get("classes") if isinstance(data, Mapping) else None
        return [str(name) for name in classes] if isinstance(classes, Mapping) else []


def read_results(folders: Sequence[Path]) -> tuple[list[RunResult], list[str]]:
    """Reads all runs at or below some folders.

    Returns:
        The runs in the order of group and seed, and one line per run that cannot be read.

    Raises:
        UserError: if a folder does not exist.
    """
    found, problems = find_runs(folders)
    runs = []
    for folder in found:
        try:
            runs.append(_read(folder))
        except (FedvtcError, OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{folder}: left out, damaged ({first_line(error)}).")
    groups = _groups(runs)
    runs = [replace(run, group=group) for run, group in zip(runs, groups, strict=True)]
    return sorted(runs, key=lambda run: (run.group, len(run.seed), run.seed, str(run.folder))), problems


def groups_of(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Returns the runs of each group, in the order of the runs."""
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def number(value: Any) -> float | None:
    """Returns a value of a record as a float; None if the value is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _read(folder: Path) -> RunResult:
    description = read_description(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if not isinstance(config, Mapping):
        raise ValueError("config.yaml: expected keys with values")
    metrics = read_metrics(folder)
    if metrics.damaged_lines:
        raise ValueError(f"metrics.jsonl:{metrics.damaged_lines[0]}: not a record")
    try:
        status = true_status(folder, description)
    except OSError:
        status = RunStatus(str(description["status"]))
    rounds = [record for record in metrics.records if record["phase"] == "round"]
    settings = _flat(config)
    return RunResult(
        folder=folder,
        description=description,
        settings=settings,
        status=status,
        records=sorted(rounds, key=lambda record: int(record["round"])),
        final=next((record for record in metrics.records if record["phase"] == "final"), None),
        rows=_newest_rows(folder),
        group="",
        seed=str(settings.get("run.seed", "?")),
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a config by dotted key; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _newest_rows(folder: Path) -> list[dict[str, Any]]:
    rows = [line.values for line in client_lines(folder) if line.values is not None]
    if not rows:
        return []
    newest = max((row["phase"] == "final", row["round"]) for row in rows)
    return [
        {key: value if key in TEXT_COLUMNS else _cell(value) for key, value in row.items()}
        for row in rows
        if (row["phase"] == "final", row["round"]) == newest
    ]


def _cell(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _groups(runs: Sequence[RunResult]) -> list[str]:
    """Returns the group of each run: the method's label, and the settings that set runs of this label apart."""
    names = []
    for run in runs:
        siblings = [other.settings for other in runs if other.method == run.method]
        keys = sorted({key for settings in siblings for key in settings if _is_related(key)})
        apart = [key for key in keys if len({json.dumps(other.get(key), default=str) for other in siblings}) > 1]
        words = [f"{key.rpartition('.')[2]} {run.settings.get(key)}" for key in apart]
        names.append(", ".join([run.method, *words]))
    return names


def _is_related(key: str) -> bool:
    return key not in UNRELATED and key.partition(".")[0] not in UNRELATED_SECTIONS
