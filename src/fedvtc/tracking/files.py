"""The run folder: its description in run.json and config.yaml, its records in metrics.jsonl and clients.csv.

Everything here is plain text that can be read without fedvtc, while the run goes on too.
"""

import csv
import importlib.metadata
import json
import math
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from omegaconf import OmegaConf

from fedvtc.errors import RunFolderError
from fedvtc.metrics import CLIENT_METRICS
from fedvtc.tracking import RunInfo, Tracker

PACKAGES = ("fedvtc", "torch", "torchvision", "lightning", "ray", "numpy")
CLIENT_COLUMNS = ("round", "phase", "client", "backbone", "num_images", "num_classes", *CLIENT_METRICS)
"""The first columns of clients.csv."""


class RunFolder:
    """One run's folder, and the run.json in it.

    run.json holds the id, name, status, attempts, versions and hardware. It never holds the environment or the command
    line, for both may carry secrets.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self._description = description

    @classmethod
    def create(
        cls, output_dir: str | Path, name: str, config_dict: Mapping[str, Any], gpus: Sequence[str] = ()
    ) -> Self:
        """Makes output_dir/name, which must not exist yet, and writes run.json (status `running`) and config.yaml.

        Args:
            output_dir: the folder that holds run folders; made where it is absent.
            name: the run's name.
            config_dict: the resolved config in plain values.
            gpus: names of the GPUs that the run may use.

        Raises:
            RunFolderError: if the folder exists, or cannot be written.
        """
        path = Path(output_dir) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()  # The one atomic step: of two runs that want the same name, one gets it.
        except FileExistsError as error:
            if not path.exists():
                raise _unwritable(output_dir, error) from None
            found = "holds a run" if (path / "run.json").exists() else "exists"
            raise RunFolderError(f"{path}: already {found}. Choose another run.name, or leave it out.") from None
        except OSError as error:
            raise _unwritable(output_dir, error) from None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        folder = cls(
            path,
            {
                "id": uuid.uuid4().hex[:8],
                "name": name,
                "status": "running",
                "created": now,
                "attempts": [{"started": now, "host": socket.gethostname(), "pid": os.getpid()}],
                "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
                "hardware": {
                    "cpus": os.cpu_count(),
                    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                    "gpus": list(gpus),
                },
            },
        )
        (path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config_dict))), encoding="utf-8")
        folder._write()
        return folder

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self._description["id"])

    def set_status(self, status: str) -> None:
        """Writes `finished`, `failed` or `interrupted`, and when."""
        self._description["status"] = status
        self._description["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._write()

    def discard(self) -> None:
        """Removes the folder of a run that never began."""
        shutil.rmtree(self.path)

    def _write(self) -> None:
        beside = self.path / "run.json.tmp"
        beside.write_text(json.dumps(self._description, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, self.path / "run.json")


class JsonlTracker(Tracker):
    """metrics.jsonl: one JSON object a line per record, on disk as soon as it is logged; what is not finite is null."""

    def start(self, run: RunInfo) -> None:
        """Opens metrics.jsonl at its end."""
        self._file = (run.folder / "metrics.jsonl").open("ab", buffering=0)

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends the record; one write per line, so a reader never meets half of one."""
        self._file.write((json.dumps(_plain(record), allow_nan=False) + "\n").encode())

    def finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()


class CsvTracker(Tracker):
    """clients.csv: one row per client and evaluation.

    The columns are `CLIENT_COLUMNS` and then whatever else the first rows hold; later rows keep to them. What a row
    lacks, or what is not finite, is an empty cell.
    """

    def start(self, run: RunInfo) -> None:
        """Opens clients.csv at its end."""
        self._file = (run.folder / "clients.csv").open("a", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Appends one row per client; `round` and `phase` are the record's."""
        rows = [_plain({"round": record["round"], "phase": record["phase"], **client}) for client in clients]
        if not rows:
            return
        if self._writer is None:
            columns = dict.fromkeys([*CLIENT_COLUMNS, *(key for row in rows for key in row)])
            self._writer = csv.DictWriter(self._file, list(columns), extrasaction="ignore", lineterminator="\n")
            if self._file.tell() == 0:
                self._writer.writeheader()
        self._writer.writerows(rows)
        self._file.flush()

    def finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()


def _unwritable(output_dir: str | Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"run.output_dir={output_dir}: cannot be written ({error.strerror}). Name a folder that you may write to."
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Run from a source tree that was not installed.
        return None


def _plain(value: Any) -> Any:
    """Python values for NumPy ones, None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
