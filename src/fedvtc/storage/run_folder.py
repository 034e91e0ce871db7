"""Creates, opens and updates the folder of a run: its id, its attempts, its status."""

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fedvtc.errors import RunExistsError, RunFolderError
from fedvtc.learning.data import save_partition
from fedvtc.storage.atomic import appearing, replaced
from fedvtc.storage.attempt import hardware, new_attempt, now
from fedvtc.storage.lock import locked
from fedvtc.storage.run_files import read_description
from fedvtc.storage.run_id import id_of_new_run
from fedvtc.storage.run_status import RunStatus, true_status

PARTITION = "partition.npz"


class RunFolder:
    """The folder of one run, with its run.json and config.yaml.

    run.json holds id, name, status, attempts, versions of the newest attempt, and hardware. run.json never holds
    environment variables or the command line, because both may contain secrets.

    Attributes:
        path: path of the folder.
        has_begun: True once the present attempt may have changed records or checkpoints of the run.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path, self.has_begun = path, False
        self._description = description
        # The thread that writes checkpoints calls `note_checkpoints`.
        self._changing = threading.Lock()

    @classmethod
    def create(
        cls, output_dir: str | Path, name: str, config_dict: Mapping[str, Any], gpus: Sequence[str] = ()
    ) -> Self:
        """Creates output_dir/name with run.json (status `running`) and config.yaml.

        The folder appears with both files at once, so that after a kill the name is still free. An empty folder of the
        name is replaced. The first job of a submitted run takes its id from FEDVTC_RUN_ID; other runs get a new id.

        Args:
            output_dir: folder of run folders; created if missing.
            name: the run's name.
            config_dict: the resolved config in plain values.
            gpus: names of the GPUs of this machine.

        Raises:
            RunExistsError: if a file or a folder with content has the name.
            RunFolderError: if the folder cannot be written, or FEDVTC_RUN_ID is not an id.
        """
        path = Path(output_dir) / name
        attempt = new_attempt()
        description = {
            "id": id_of_new_run(),
            "name": name,
            "status": "running",
            "created": attempt["started"],
            "attempts": [attempt],
            "versions": attempt["versions"],
            "hardware": hardware(gpus),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as beside:
                folder = cls(beside, description)
                folder.write_config(config_dict)
                folder._write()
        except OSError as error:
            if not isinstance(error, FileExistsError) or not os.path.lexists(path):
                what = f"run.output_dir={output_dir}: cannot be written ({error.strerror})"
                raise RunFolderError(f"{what}. Name a folder that you may write to.") from None
            found = "holds a run" if os.path.exists(path / "run.json") else "exists"
            raise RunExistsError(f"{path}: already {found}. Choose another run.name, or leave run.name out.") from None
        return cls(path, description)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens an existing run folder.

        Raises:
            RunFolderError: if the folder is missing, unreadable or not a run folder, its run.json is damaged, or the
                folder holds a link.
        """
        path = Path(path)
        description = read_description(path)
        try:
            links = sorted(entry for entry in path.iterdir() if entry.is_symlink())
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror}). Make the folder readable.") from None
        if links:
            fix = "Replace the link by its target; to keep checkpoints elsewhere, set checkpoint.dir."
            raise RunFolderError(f"{links[0]}: is a link; runs neither make nor follow links. {fix}")
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
        """The run's status, one of `run_files.STATUSES`; a killed run still has the status `running`."""
        return str(self._description["status"])

    @property
    def true_status(self) -> RunStatus:
        """The status with its reason; `killed` for a run that says `running` without a process.

        Raises:
            OSError: see `run_status.true_status`.
        """
        return true_status(self.path, self._description)

    @property
    def attempts(self) -> Sequence[Mapping[str, Any]]:
        """All attempts: `started`, `host`, `pid`, `versions`, `commits`, `code`, `incidents`; later `resumed_round`."""
        return tuple(self._description["attempts"])

    @property
    def incidents(self) -> dict[str, int]:
        """Counts of the incidents of all attempts by kind; a killed attempt has none."""
        return dict(sum((Counter(attempt.get("incidents", {})) for attempt in self.attempts), Counter()))

    def begin_attempt(self, resumed_round: int) -> None:
        """Adds an attempt by this process and sets the status to `running`.

        Args:
            resumed_round: the round that the run resumes after; 0 if the run starts over.

        Raises:
            OSError: if run.json cannot be written.
        """
        attempt = new_attempt()
        self._description["attempts"].append({**attempt, "resumed_round": resumed_round})
        self._description["versions"] = attempt["versions"]
        self._description.pop("has_checkpoints", None)
        if resumed_round > 0:
            self._description["has_checkpoints"] = True
        self._description["status"] = "running"
        self._description.pop("ended", None)
        self._description.pop("reason", None)
        self._write()

    @property
    def has_checkpoints(self) -> bool:
        """True if the run has completed a checkpoint of a round since the run last started from round 1."""
        return self._description.get("has_checkpoints") is True

    def note_checkpoints(self) -> None:
        """Sets `has_checkpoints`, from any thread; a full disk is ignored."""
        with self._changing, suppress(OSError):
            self._description["has_checkpoints"] = True
            self._write()

    def set_status(self, status: str, incidents: Mapping[str, int] | None = None, reason: str = "") -> None:
        """Writes the status, its reason and the time of the end.

        Args:
            status: `finished`, `failed` or `interrupted`.
            incidents: counts of this attempt's incidents by kind. The last round of a failed run has no record, so
                run.json is the only file with its incidents.
            reason: the error or signal that ended the run, in one line; empty for a finished run.

        Raises:
            OSError: if run.json cannot be written.
        """
        with self._changing:
            self._description["status"] = status
            if incidents:
                self._description["attempts"][-1]["incidents"] = dict(incidents)
            self._description["ended"] = now()
            self._description.pop("reason", None)
            if reason:
                self._description["reason"] = reason
            self._write()

    def write_config(self, config_dict: Mapping[str, Any]) -> None:
        """Replaces config.yaml by the resolved config in plain values.

        Raises:
            OSError: if config.yaml cannot be written.
        """
        with replaced(self.path / "config.yaml") as beside:
            beside.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config_dict))), encoding="utf-8")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder while the block lasts and reads run.json again, which another process may have changed.

        Raises:
            RunFolderError: if another process holds the lock, the folder cannot be written, or run.json is damaged.
        """
        with locked(self.path):
            self._description = RunFolder.open(self.path)._description
            yield

    @property
    def partition(self) -> Path:
        """Path of the file with the image indices of every client."""
        return self.path / PARTITION

    def save_partition(self, parts: Sequence[NDArray[np.int64]], labels_N: NDArray[np.int64]) -> None:
        """Writes the image indices of each client and all labels, unless an earlier attempt did.

        Raises:
            OSError: if the file cannot be written.
        """
        if not self.partition.exists():
            with replaced(self.partition) as beside:
                save_partition(beside, parts, labels_N)

    @property
    def data_hash(self) -> str | None:
        """The hash of the run's images and labels; None if an older version of fedvtc started the run."""
        data = self._description.get("data")
        return str(data["hash"]) if isinstance(data, dict) and "hash" in data else None

    def save_data(self, report: Mapping[str, Any]) -> None:
        """Writes the data report, with the `hash` of all images and labels, unless an earlier attempt did.

        Raises:
            OSError: if run.json cannot be written.
        """
        if self.data_hash is None:
            with self._changing:
                self._description["data"] = dict(report)
                self._write()

    def describe_attempt(self, key: str, facts: Mapping[str, Any]) -> None:
        """Writes facts into the present attempt, such as the hashes of own code.

        Raises:
            OSError: if run.json cannot be written.
        """
        with self._changing:
            self._description["attempts"][-1][key] = dict(facts)
            self._write()

    def restorer(self) -> Callable[[], None]:
        """Returns a function that writes run.json and config.yaml as they are now; the function ignores a full disk.

        Raises:
            OSError: if a file cannot be read.
        """
        # config.yaml first: after a crash in between, the run must not look finished under the other config.
        former = {file: file.read_bytes() for file in (self.path / "config.yaml", self.path / "run.json")}

        def restore() -> None:
            with suppress(OSError):
                for file, content in former.items():
                    with replaced(file) as beside:
                        beside.write_bytes(content)

        return restore

    def discard(self) -> None:
        """Deletes the folder of a run that never started; ignores errors."""
        # On NFS, the open lock file keeps the folder until the process ends.
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self) -> None:
        with replaced(self.path / "run.json") as beside:
            beside.write_text(json.dumps(self._description, indent=2) + "\n", encoding="utf-8")
