"""Reads a run folder for people: config, status, records. Damage is an error that names the file."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fedvtc.config.fields import leaves
from fedvtc.config.schema import Config
from fedvtc.errors import first_line
from fedvtc.learning.methods import config_classes, names
from fedvtc.storage.records import METRICS_FILE, read_metrics
from fedvtc.storage.run_status import RunStatus, true_status

METHOD = "method"
"""The name under which tables and lists show a run's method: `method.label`, or else `method.name`."""
SEED = "run.seed"
DAMAGE = (OSError, ValueError, yaml.YAMLError)
"""Errors of a damaged or unreadable run folder."""


@dataclass(frozen=True, eq=False)
class RunFacts:
    """The content of a run folder.

    Attributes:
        folder: the run folder.
        description: the content of run.json.
        config: the content of config.yaml.
        records: the undamaged records, in file order.
        damaged_lines: numbers of the damaged lines of metrics.jsonl.
        status: the true status; a killed run does not count as running.
    """

    folder: Path
    description: Mapping[str, Any]
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    damaged_lines: Sequence[int]
    status: RunStatus

    @property
    def name(self) -> str:
        """The name of the run, or else of its folder."""
        return str(self.description.get("name") or self.folder.name)

    @property
    def created(self) -> str:
        """Start of the run, ISO 8601; empty if unknown."""
        return str(self.description.get("created", ""))

    @property
    def seed(self) -> int | None:
        """`run.seed`; None if unknown."""
        seed = self.section("run").get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def num_rounds(self) -> Any:
        """`run.rounds`; None if unknown."""
        return self.section("run").get("rounds")

    @property
    def last_round(self) -> int:
        """The last recorded round; 0 without records."""
        return max((record["round"] for record in self.records), default=0)

    @property
    def method(self) -> str:
        """The label of the method in one line, or else its name."""
        method = self.section("method")
        return " ".join(str(method.get("label") or method.get("name", "?")).split()) or "?"

    def section(self, name: str) -> Mapping[str, Any]:
        """Returns a section of the config; an empty mapping if the config lacks the section."""
        return _mapping(self.config.get(name, {}), f"config.yaml: {name}")

    def settings(self) -> dict[str, Any]:
        """Returns the values of the config by dotted key, and the method under `method`; lists are values.

        Keys that a later version has added have their default in the runs of an earlier version.
        """
        return {METHOD: self.method, **_added_later(self.section("method").get("name")), **_flat(self.config, "")}


def read_run(folder: Path) -> RunFacts:
    """Reads a run folder.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is damaged.
        yaml.YAMLError: config.yaml is damaged.
    """
    description = _mapping(json.loads((folder / "run.json").read_text(encoding="utf-8")), "run.json")
    config = _mapping(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")), "config.yaml")
    metrics = read_metrics(folder)
    return RunFacts(folder, description, config, metrics.records, metrics.damaged_lines, _status(folder, description))


def repeat_command(run: RunFacts) -> str:
    """Returns the command that runs the config of a run again under a new name."""
    words = ["fedvtc", "run", str(run.folder / "config.yaml"), "run.name=null"]
    if run.section("run").get("resume") == "auto":
        # The run of a sweep or a job, which is found by its name. A sweep's folder is for its own trials.
        words += ["run.resume=never", "run.output_dir=outputs"]
    return shlex.join(words)


def check_records(run: RunFacts) -> None:
    """Raises a ValueError if metrics.jsonl has a damaged line."""
    if run.damaged_lines:
        raise ValueError(f"{METRICS_FILE}:{run.damaged_lines[0]}: not a record")


def damage(error: Exception) -> str:
    """Returns the reason of one of the errors `DAMAGE` in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return first_line(error)


def _status(folder: Path, description: Mapping[str, Any]) -> RunStatus:
    try:
        return true_status(folder, description)
    except OSError:
        # A file system without locks, or a lock that this user may not read: run.json alone decides.
        return RunStatus(str(description.get("status", "?")))


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected keys with values")
    return value


def _flat(values: Mapping[str, Any], above: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return flat


@cache
def _added_later(method: object) -> Mapping[str, Any]:
    # Methods of a user's own are not imported to read their runs.
    sections = [leaves(Config), *([leaves(config_classes()[method], METHOD)] if method in names() else [])]
    return {leaf.key: leaf.default for section in sections for leaf in section if leaf.is_added_later}
