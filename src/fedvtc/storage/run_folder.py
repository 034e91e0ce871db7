"""The run folder: who runs in it, under which id, and how that ended."""

import json
import os
import shutil
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fedvtc.errors import RunExistsError, RunFolderError
from fedvtc.learning.data import save_partition
from fedvtc.storage import versions
from fedvtc.storage.atomic import appearing, replaced
from fedvtc.storage.lock import locked
from fedvtc.storage.run_files import RUN_ID, read_description

PARTITION = "partition.npz"
RUN_ID_VARIABLE = "FEDVTC_RUN_ID"
"""Environment variable with the id of the run that a submitted job begins."""
ATTEMPT_VARIABLE = "FEDVTC_ATTEMPT"
"""Environment variable with the number of a submitted job among those of its run, from 1."""


class RunFolder:
    """One run's folder, with its run.json and config.yaml.

    run.json holds the id, name, status, attempts, versions and hardware. It never holds the environment or the command
    line, for both may carry secrets.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self._description = description
        # Checkpoints are noted by the thread that writes them.
        self._changing = threading.Lock()

    @classmethod
    def create(
        cls, output_dir: str | Path, name: str, config_dict: Mapping[str, Any], gpus: Sequence[str] = ()
    ) -> Self:
        """Makes output_dir/name with its run.json (status `running`) and config.yaml; there may be an empty folder.

        All at once, for whoever is killed meanwhile is to find the name free when started again. The id is new, or that
        of FEDVTC_RUN_ID in the first job of a run.

        Args:
            output_dir: the folder that holds run folders; made where it is absent.
            name: the run's name.
            config_dict: the resolved config in plain values.
            gpus: names of those of this machine.

        Raises:
            RunExistsError: if something has the name.
            RunFolderError: if the folder cannot be written, or FEDVTC_RUN_ID is no id.
        """
        path = Path(output_dir) / name
        run_id = os.environ.get(RUN_ID_VARIABLE) or new_id()
        if not RUN_ID.fullmatch(run_id):
            what = f"{RUN_ID_VARIABLE}={run_id!r}: must be 8 hex digits"
            raise RunFolderError(f"{what}. Unset it; `fedvtc submit` sets it.")
        if os.environ.get(ATTEMPT_VARIABLE, "1") != "1":
            # Under the id of the run whose folder is gone, trackers would add a second curve to its first.
            run_id = new_id()
        attempt = _attempt()
        description = {
            "id": run_id,
            "name": name,
            "status": "running",
            "created": attempt["started"],
            "attempts": [attempt],
            "versions": versions.installed(),
            "hardware": {
                "cpus": os.cpu_count(),
                "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "gpus": list(gpus),
            },
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as beside:
                folder = cls(beside, description)
                folder.write_config(config_dict)
                folder._write()
        except OSError as error:
            if not isinstance(error, FileExistsError) or not os.path.lexists(path):
                raise _unwritable(output_dir, error) from None
            found = "holds a run" if os.path.exists(path / "run.json") else "exists"
            raise RunExistsError(f"{path}: already {found}. Choose another run.name, or leave it out.") from None
        return cls(path, description)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens the folder of a run that is to go on.

        Raises:
            RunFolderError: if it is absent or cannot be read, holds no run, its run.json is damaged, or a link lies in
                it.
        """
        path = Path(path)
        description = read_description(path)
        try:
            links = sorted(entry for entry in path.iterdir() if entry.is_symlink())
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror}). Make it readable.") from None
        if links:
            fix = "Put what it leads to in its place; for checkpoints elsewhere there is checkpoint.dir."
            raise RunFolderError(f"{links[0]}: is a link, which no run makes and none follows. {fix}")
        return cls(path, description)

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self._description["id"])

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self._description["name"])

    @property
    def status(self) -> str:
        """One of `run_files.STATUSES`; a run that was killed is still `running`."""
        return str(self._description["status"])

    @property
    def attempts(self) -> Sequence[Mapping[str, Any]]:
        """Every process that has run it: `started`, `host`, `pid`, from the second on `resumed_round`, `incidents`."""
        return tuple(self._description["attempts"])

    @property
    def incidents(self) -> dict[str, int]:
        """Those of all attempts, counted by kind; an attempt that was killed has not said."""
        return dict(sum((Counter(attempt.get("incidents", {})) for attempt in self.attempts), Counter()))

    def begin_attempt(self, resumed_round: int) -> None:
        """Adds this process to the attempts; the run is `running` again.

        Args:
            resumed_round: the round after which the run goes on; 0 where it starts over.

        Raises:
            OSError: if run.json cannot be written.
        """
        self._description["attempts"].append({**_attempt(), "resumed_round": resumed_round})
        self._description.pop("has_checkpoints", None)
        if resumed_round > 0:
            self._description["has_checkpoints"] = True
        self._description["status"] = "running"
        self._description.pop("ended", None)
        self._write()

    @property
    def has_checkpoints(self) -> bool:
        """Whether the run, since it last began, had a whole checkpoint of a round."""
        return self._description.get("has_checkpoints") is True

    def note_checkpoints(self) -> None:
        """Remembers that it has, from any thread; on a disk that is full it is not remembered."""
        with self._changing, suppress(OSError):
            self._description["has_checkpoints"] = True
            self._write()

    def set_status(self, status: str, incidents: Mapping[str, int] | None = None) -> None:
        """Writes `finished`, `failed` or `interrupted`, and when.

        Args:
            status: of the run.
            incidents: of this attempt, counted by kind; a round that ends the run has no record that would tell them.

        Raises:
            OSError: if run.json cannot be written.
        """
        with self._changing:
            self._description["status"] = status
            if incidents:
                self._description["attempts"][-1]["incidents"] = dict(incidents)
            self._description["ended"] = _now()
            self._write()

    def write_config(self, config_dict: Mapping[str, Any]) -> None:
        """Writes config.yaml anew.

        Args:
            config_dict: the resolved config in plain values.

        Raises:
            OSError: if it cannot be written.
        """
        with replaced(self.path / "config.yaml") as beside:
            beside.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config_dict))), encoding="utf-8")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """As `locked`; what another process wrote to run.json before is read again.

        Raises:
            RunFolderError: if another process holds it, the folder cannot be written, or run.json is damaged.
        """
        with locked(self.path):
            self._description = RunFolder.open(self.path)._description
            yield

    @property
    def partition(self) -> Path:
        """The file with the images of every client."""
        return self.path / PARTITION

    def save_partition(self, parts: Sequence[NDArray[np.int64]], labels_N: NDArray[np.int64]) -> None:
        """Writes the partition, once for the life of the run.

        Args:
            parts: indices of the training images of each client, in client order.
            labels_N: labels of all training images.

        Raises:
            OSError: the partition cannot be written.
        """
        if not self.partition.exists():
            with replaced(self.partition) as beside:
                save_partition(beside, parts, labels_N)

    def discard(self) -> None:
        """Removes the folder of a run that never began."""
        shutil.rmtree(self.path)

    def _write(self) -> None:
        with replaced(self.path / "run.json") as beside:
            beside.write_text(json.dumps(self._description, indent=2) + "\n", encoding="utf-8")


def new_id() -> str:
    """An id for a run: 8 hex digits."""
    return uuid.uuid4().hex[:8]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attempt() -> dict[str, Any]:
    return {"started": _now(), "host": socket.gethostname(), "pid": os.getpid()}


def _unwritable(output_dir: str | Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"run.output_dir={output_dir}: cannot be written ({error.strerror}). Name a folder that you may write to."
    )
