"""The folder of a sweep: what its run folders say of each trial. They are the truth, whatever Ray Tune remembers."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.config import check_resumable, load, same_place
from fedvtc.errors import ConfigError, RunFolderError
from fedvtc.storage.atomic import replaced
from fedvtc.storage.lock import locked
from fedvtc.storage.records import read_metrics
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder

DEFINITION = "sweep.yaml"
STOPPED = "stopped_early.json"
SETTLE_S = 10.0
"""Seconds that the processes of a sweep that ends get to be gone."""


class SweepFolder:
    """What a sweep has on disk.

    Args:
        sweep: whose folder it is; it need not exist yet.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.path = sweep, sweep.path

    @property
    def is_here(self) -> bool:
        """Whether this machine has the storage that it is on, or is to be on, and may write there."""
        there = self.path if os.path.exists(self.path) else self.path.parent
        return os.path.isdir(there) and os.access(there, os.R_OK | os.W_OK | os.X_OK)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder, refuses it where it holds another sweep, and keeps other processes out inside.

        Raises:
            ConfigError: trials have run folders of other configs; one line for every key that differs.
            RunFolderError: the folder cannot be written, one in it is damaged, or another process runs the sweep.
        """
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "Set run.output_dir to a folder that you may write to."
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}). {fix}") from None
        with locked(self.path):
            self.check()
            self._write()
            yield

    def check(self) -> None:
        """Refuses the folder where it holds another sweep; reads only.

        Raises:
            ConfigError: trials have run folders of other configs; one line for every key that differs.
            RunFolderError: one of those is damaged.
        """
        from fedvtc.learning.methods import config_classes

        lines = []
        for trial in self.sweep.trials:
            if not (trial.path / "run.json").exists():
                continue
            folder = RunFolder.open(trial.path)
            before = load([config_layer(folder.path)], [], methods=config_classes())
            try:
                check_resumable(before, same_place(before, trial.config))
            except ConfigError as error:
                lines += [f"{trial.path}: {problem}" for problem in error.problems]
        if lines:
            fix = "Set another name, or give the file and the keys that it was started with."
            lines.append(f"{self.sweep.file}: {self.path} holds a sweep of other trials. {fix}")
            raise ConfigError(lines)

    def state(self, trial: Trial) -> str:
        """`absent`, `stopped early`, or what run.json says; a finished run that is to have more rounds is `waiting`."""
        if not (trial.path / "run.json").exists():
            return "absent"
        if self.sweep.asha is not None and trial.name in self.stopped_early():
            return "stopped early"
        status = RunFolder.open(trial.path).status
        return "waiting" if status == "finished" and _rounds(trial) != trial.config.run.rounds else status

    def pending(self) -> list[Trial]:
        """The trials that are still to be run, or to go on."""
        return [trial for trial in self.sweep.trials if self.state(trial) not in ("finished", "stopped early")]

    def log(self, trial: Trial) -> Path:
        """What a trial prints goes here."""
        return self.path / "logs" / f"{trial.name}.log"

    def last_record(self, trial: Trial) -> Mapping[str, Any]:
        """The newest record of a trial, empty where there is none."""
        records = read_metrics(trial.path).records
        return records[-1] if records else {}

    def stopped_early(self) -> dict[str, int]:
        """The trials that were stopped early, and after which round."""
        file = self.path / STOPPED
        if not os.path.exists(file):
            return {}
        try:
            return {str(name): int(round) for name, round in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            fix = "Remove it, and the trials in it go on."
            raise RunFolderError(f"{file}: damaged ({type(error).__name__}). {fix}") from None

    def note_stopped(self, name: str, round: int) -> None:
        """Writes down that a trial was stopped early, so that it is not taken up again."""
        stopped = self.stopped_early() | {name: round}
        with replaced(self.path / STOPPED) as beside:
            beside.write_text(json.dumps(stopped, indent=2) + "\n", encoding="utf-8")

    def settle(self) -> None:
        """Marks runs whose process is gone as interrupted; those of processes that live on stay as they are."""
        until_s = time.monotonic() + SETTLE_S
        for trial in self.sweep.trials:
            while (trial.path / "run.json").exists() and RunFolder.open(trial.path).status == "running":
                try:
                    folder = RunFolder.open(trial.path)
                    with folder.lock():
                        if folder.status == "running":
                            folder.set_status("interrupted")
                except RunFolderError:
                    if time.monotonic() > until_s:
                        break
                    time.sleep(0.2)

    def _write(self) -> None:
        definition = {
            "name": self.sweep.name,
            "file": str(self.sweep.file),
            "trials": {
                trial.name: {"values": dict(trial.values), "run": list(trial.words)} for trial in self.sweep.trials
            },
        }
        try:
            with replaced(self.path / DEFINITION) as beside:
                beside.write_text(yaml.safe_dump(definition, sort_keys=False, width=10_000), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}). Make room for it.") from None


def _rounds(trial: Trial) -> Any:
    config = yaml.safe_load((trial.path / "config.yaml").read_text(encoding="utf-8"))
    return config["run"]["rounds"]
