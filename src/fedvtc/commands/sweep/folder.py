"""The sweep folder: states of trials, read from their run folders. Ray Tune's own state never decides."""

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
from fedvtc.reporting.comparison.trials import ABSENT, DEFINITION, FINISHED, STOPPED, STOPPED_FILE, WAITING
from fedvtc.storage.atomic import replaced
from fedvtc.storage.lock import locked
from fedvtc.storage.records import read_metrics
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder

EXIT_WAIT_S = 10.0
"""Seconds to wait for the processes of trials to exit when a sweep ends."""


class SweepFolder:
    """The files of a sweep.

    Args:
        sweep: the sweep; its folder need not exist yet.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.path = sweep, sweep.path

    @property
    def is_on_this_machine(self) -> bool:
        """True if this machine can write the sweep folder; if that does not exist yet, the parent folder."""
        folder = self.path if os.path.exists(self.path) else self.path.parent
        return os.path.isdir(folder) and os.access(folder, os.R_OK | os.W_OK | os.X_OK)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Creates, checks and locks the folder, and writes sweep.yaml.

        Raises:
            ConfigError: run folders hold other configs; one line for each key that differs.
            RunFolderError: the folder is not writable, a run folder is damaged, or another process runs the sweep.
        """
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "Set run.output_dir to a folder that you can write to."
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}). {fix}") from None
        with locked(self.path):
            self.check()
            self._write_definition()
            yield

    def check(self) -> None:
        """Refuses a folder with runs of other configs; writes nothing.

        Raises:
            ConfigError: run folders hold other configs; one line for each key that differs.
            RunFolderError: a run folder is damaged.
        """
        from fedvtc.learning.methods import config_classes
        from fedvtc.storage.trust import is_owned

        lines = []
        for trial in self.sweep.trials:
            if not trial.has_run:
                continue
            folder = RunFolder.open(trial.path)
            refusal = "" if is_owned(folder.path) else "The folder belongs to another user. Set another run.output_dir."
            before = load([config_layer(folder.path)], [], methods=config_classes(refusal))
            try:
                check_resumable(before, same_place(before, trial.config))
            except ConfigError as error:
                lines += [f"{trial.path}: {problem}" for problem in error.problems]
        if lines:
            fix = "Change the name of the sweep, or use the sweep file and keys that started the sweep there."
            lines.append(f"{self.sweep.file}: {self.path} holds a sweep with other configs. {fix}")
            raise ConfigError(lines)

    def state(self, trial: Trial) -> str:
        """Returns the state of a trial.

        The state is `absent`, `waiting` for a finished run whose config now asks for another number of rounds,
        `stopped early` for a run that has not finished since, or else the status in run.json.
        """
        if not trial.has_run:
            return ABSENT
        status = RunFolder.open(trial.path).status
        if status == FINISHED:
            return FINISHED if _num_rounds(trial) == trial.config.run.rounds else WAITING
        return STOPPED if self.sweep.asha is not None and trial.name in self.stopped_early() else status

    def pending(self) -> list[Trial]:
        """Returns the trials that are neither finished nor stopped early."""
        return [trial for trial in self.sweep.trials if self.state(trial) not in (FINISHED, STOPPED)]

    def log(self, trial: Trial) -> Path:
        """Returns the file with the output of a trial."""
        return self.path / "logs" / f"{trial.name}.log"

    def last_record(self, trial: Trial) -> Mapping[str, Any]:
        """Returns the newest record of a trial; an empty mapping if the trial has no records."""
        records = read_metrics(trial.path).records
        return records[-1] if records else {}

    def stopped_early(self) -> dict[str, int]:
        """Returns the last round of each trial that was stopped early, by name."""
        file = self.path / STOPPED_FILE
        if not os.path.exists(file):
            return {}
        try:
            return {str(name): int(round) for name, round in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            fix = "Remove the file; the trials that were stopped early then resume."
            raise RunFolderError(f"{file}: damaged ({type(error).__name__}). {fix}") from None

    def add_stopped_early(self, name: str, round: int) -> None:
        """Saves that a trial was stopped early, so that the trial does not resume."""
        stopped = self.stopped_early() | {name: round}
        with replaced(self.path / STOPPED_FILE) as beside:
            beside.write_text(json.dumps(stopped, indent=2) + "\n", encoding="utf-8")

    def mark_interrupted(self) -> None:
        """Sets the status of running trials without a process to `interrupted`; waits `EXIT_WAIT_S` for processes."""
        until_s = time.monotonic() + EXIT_WAIT_S
        for trial in self.sweep.trials:
            while trial.has_run and RunFolder.open(trial.path).status == "running":
                try:
                    folder = RunFolder.open(trial.path)
                    with folder.lock():
                        if folder.status == "running":
                            folder.set_status("interrupted", reason="the sweep ended the process of the run")
                # A live process holds the lock.
                except RunFolderError:
                    if time.monotonic() > until_s:
                        break
                    time.sleep(0.2)
                # On a full disk the status stays; the run resumes all the same.
                except OSError:
                    break

    def _write_definition(self) -> None:
        definition = {
            "name": self.sweep.name,
            "file": str(self.sweep.file),
            "target": self.sweep.target,
            "trials": {
                trial.name: {
                    "values": dict(trial.values),
                    "run": list(trial.arguments),
                    "rounds": trial.config.run.rounds,
                }
                for trial in self.sweep.trials
            },
        }
        try:
            with replaced(self.path / DEFINITION) as beside:
                beside.write_text(yaml.safe_dump(definition, sort_keys=False, width=10_000), encoding="utf-8")
        except OSError as error:
            fix = "Check permissions and free disk space."
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}). {fix}") from None


def _num_rounds(trial: Trial) -> Any:
    """Returns the number of rounds that the run folder of a trial asks for."""
    config = yaml.safe_load((trial.path / "config.yaml").read_text(encoding="utf-8"))
    return config["run"]["rounds"]
