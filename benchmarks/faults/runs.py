"""Runs of the program in subprocesses: undisturbed, or disturbed and resumed until they finish."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from faults import residue
from faults.compare import Result, differences
from faults.trial import Setting, Trial
from faults.workspace import Workspace, workspace_of

MAX_RESUMES = 5
LIMIT_S = 300.0
"""Seconds after which an attempt counts as hung."""


class Attempt:
    """One process of the program; its output is kept in a file.

    Args:
        words: words of the command line.
        workspace: the workspace of the run.
        number: the number of the attempt.
        usual_s: seconds of each round of an undisturbed run, see `faults.trial.Attempt`.
    """

    def __init__(self, words: Sequence[str], workspace: Workspace, number: int, usual_s: Sequence[float] = ()) -> None:
        self.usual_s, self.disk = usual_s, workspace.disk
        self._workspace, self._output = workspace, workspace.folder / f"output-{number}.txt"
        command = [sys.executable, "-m", "fedvtc", *words]
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, env=workspace.environment, start_new_session=True
            )

    def wait(self, *, rounds: int = 0, seconds: float = 0.0) -> bool:
        """Waits until rounds are done and seconds have passed; returns False if the process ended before."""
        until_s: float | None = None
        while self._process.poll() is None:
            if until_s is None and self._has_done(rounds):
                until_s = time.monotonic() + seconds
            if until_s is not None and time.monotonic() >= until_s:
                return True
            time.sleep(0.01)
        return False

    def _has_done(self, rounds: int) -> bool:
        return (self._workspace.run / "run.json").exists() and self.printed().count("\nround ") >= rounds

    def signal(self, number: int, *, to_all: bool) -> None:
        """Sends a signal to the driver, or to all processes of its group."""
        if to_all:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def order(self, word: str) -> None:
        """Sends an order to the cluster of two nodes."""
        assert self._workspace.cluster is not None
        assert self._workspace.cluster.stdin is not None
        self._workspace.cluster.stdin.write(f"{word}\n")
        self._workspace.cluster.stdin.flush()

    def printed(self) -> str:
        """All output so far."""
        return self._output.read_text(errors="replace")

    def end(self) -> int | None:
        """The exit code; None if the process hung, which the end of the workspace then kills."""
        try:
            return self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return None


@dataclass
class Outcome:
    """Outcome of a trial.

    Attributes:
        codes: exit codes of the attempts; None for an attempt that hung.
        records: True if all records and rows equal those of the undisturbed run.
        weights: True if all weights equal those of the undisturbed run; None if the run could leave no weights.
        num_lost: rounds without a record, or with more than one.
        num_orphans: processes that outlived the trial.
        seconds: seconds until the last process had ended.
        problems: one line for each problem.
    """

    codes: list[int | None] = field(default_factory=list)
    records: bool = False
    weights: bool | None = False
    num_lost: int = 0
    num_orphans: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The fate of the run in a word."""
        if self.codes[-1] != 0:
            return "hung" if self.codes[-1] is None else f"exit {self.codes[-1]}"
        return f"resumed x{len(self.codes) - 1}" if len(self.codes) > 1 else "recovered"


class Runner:
    """Runs one federation many times.

    Args:
        setting: the federation.
        folder: folder for the folders of the runs; its path must be short, because Ray creates sockets below it.
    """

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._folder = setting, folder
        self._usual_s: list[float] = []
        self._expected: Result | None = None
        self._marks: list[str] = []

    def undisturbed(self, num_actors: int, *overrides: str) -> tuple[Result, float]:
        """Returns the result of an undisturbed run, which trials are compared with from now on, and its seconds."""
        trial = Trial("", "", num_actors, overrides=overrides)
        with workspace_of(self._setting, trial, self._folder / f"usual-{num_actors}") as workspace:
            attempt = Attempt(["run", *workspace.words], workspace, 0)
            times_s = [self._time_of(attempt, rounds) for rounds in range(self._setting.rounds + 1)]
            if attempt.end() != 0:
                raise SystemExit(f"The undisturbed run failed:\n{attempt.printed()}")
            times_s.append(time.monotonic())
            self._usual_s = [later - earlier for earlier, later in pairwise(times_s)]
            found = self._expected = Result.of(workspace.run, workspace.run)
        # Two incomplete runs could be equal.
        if found.num_lost(self._setting.rounds) or len(found.weights) != self._setting.num_clients or not found.rows:
            raise SystemExit(f"The undisturbed run is incomplete:\n{attempt.printed()}")
        return found, sum(self._usual_s)

    @staticmethod
    def _time_of(attempt: Attempt, rounds: int) -> float:
        attempt.wait(rounds=rounds)
        return time.monotonic()

    def disturbed(self, trial: Trial, name: str) -> Outcome:
        """Runs a trial until the run finishes or fails, and checks the files and processes that remain."""
        outcome, began_s, shared_before = Outcome(), time.monotonic(), residue.shared_memory()
        with workspace_of(self._setting, trial, self._folder / name) as workspace:
            self._attempts(trial, workspace, outcome)
            workspace.close_cluster()
            self._marks.append(workspace.mark)
            left = residue.orphans(workspace.mark)
            outcome.seconds, outcome.num_orphans = time.monotonic() - began_s, len(left)
            outcome.problems += [f"left behind: process {pid} {command}" for pid, command in left.items()]
            outcome.problems += [f"left behind: {path}" for path in residue.shared_memory() - shared_before]
            for number, fault in enumerate(trial.faults):
                if not workspace.marker(number).exists():
                    outcome.problems.append(f"{fault['target']}: call {fault['call']} did not happen")
            self._compare(trial, workspace, outcome)
        return outcome

    def agents(self, patience_s: float = 90.0) -> dict[int, str]:
        """Kills Ray's agents of all trials that did not end by themselves; returns their names by process id."""
        left = residue.agents(self._marks, patience_s)
        residue.kill(left)
        return left

    def _attempts(self, trial: Trial, workspace: Workspace, outcome: Outcome) -> None:
        words: Sequence[str] = ("run", *workspace.words)
        must_print: Sequence[str] = ()
        for number in range(1 + MAX_RESUMES):
            attempt = Attempt(words, workspace, number, self._usual_s)
            if number == 0 and trial.disturb is not None:
                trial.disturb(attempt)
            code = attempt.end()
            outcome.codes.append(code)
            missing = [text for text in must_print if text not in attempt.printed()]
            outcome.problems += [f"not printed on resuming: {text}" for text in missing]
            if code == 0 or code not in (trial.code, trial.ray_code):
                break
            must_print = trial.damage(workspace.run) if number == 0 and trial.damage is not None else ()
            words = ("resume", str(workspace.run), "--plain")
        if outcome.codes[-1] != 0:
            outcome.problems.append(f"ended with {outcome.codes}")
        elif not {trial.code, trial.ray_code}.intersection(outcome.codes):
            outcome.problems.append(f"no attempt ended with {trial.code}")

    def _compare(self, trial: Trial, workspace: Workspace, outcome: Outcome) -> None:
        assert self._expected is not None
        try:
            status = json.loads((workspace.run / "run.json").read_text())["status"]
            found = Result.of(workspace.run, workspace.disk if trial.disk else workspace.run)
        except (OSError, ValueError, KeyError, csv.Error) as error:
            outcome.problems.append(f"cannot be read: {type(error).__name__} {error}")
            return
        if status != "finished":
            outcome.problems.append(f"run.json says {status}")
        unequal = differences(self._expected, found)
        outcome.problems += unequal
        outcome.records, outcome.num_lost = not unequal, found.num_lost(self._setting.rounds)
        if trial.has_weights:
            outcome.weights = found.weights == self._expected.weights
            if not outcome.weights:
                outcome.problems.append(f"weights differ from the undisturbed run, {len(found.weights)} clients")
        else:
            outcome.weights = None
