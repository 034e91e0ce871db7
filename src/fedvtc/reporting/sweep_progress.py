"""The progress of a sweep, read from its folder: trials by status, rounds, the time that is left."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.comparison.trials import ABSENT, FINISHED, INCOMPLETE, STOPPED, WAITING, Planned, sweep_definition
from fedvtc.reporting.run_facts import DAMAGE, RunFacts, read_run
from fedvtc.reporting.run_numbers import wall_clock_s
from fedvtc.reporting.run_values import values_of
from fedvtc.reporting.runs import RunRow
from fedvtc.storage.lock import holder

RUNNING, DAMAGED = "running", "damaged"
WAITING_WORDS = {WAITING: "waiting", ABSENT: "not started"}
SHOWN = ("failed", "killed", "interrupted", DAMAGED, INCOMPLETE, RUNNING)
"""Statuses whose trials are listed one by one; trials that are done or wait are counted only."""


@dataclass(frozen=True)
class TrialProgress:
    """The progress of one trial.

    Attributes:
        name: the name of the trial.
        status: the status of the trial.
        round: last recorded round, of all rounds; empty before the start.
        accuracy: newest mean accuracy; empty before an evaluation.
        seconds: wall clock of the recorded rounds.
        left_s: seconds that the remaining rounds will take at the same speed; None if unknown or not running.
        reason: the reason of the end of a trial that ended early.
    """

    name: str
    status: str
    round: str = ""
    accuracy: str = ""
    seconds: float = 0.0
    left_s: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep.

    Attributes:
        folder: the sweep folder.
        trials: all trials, in the order of the sweep file.
        is_active: True if a process runs the sweep, or a trial runs.
    """

    folder: Path
    trials: Sequence[TrialProgress]
    is_active: bool

    @property
    def num_done(self) -> int:
        """Trials that are finished or were stopped early."""
        return sum(trial.status in (FINISHED, STOPPED) for trial in self.trials)

    @property
    def left_s(self) -> float | None:
        """Estimate of the seconds until the last trial ends; None without a basis.

        Trials that wait take the mean time of finished trials, or of running ones; as many run at once as now. Steps
        after the last round and waiting for slots are not in the estimate.
        """
        running = [trial for trial in self.trials if trial.status == RUNNING]
        waiting = sum(trial.status in (ABSENT, WAITING) for trial in self.trials)
        known = [trial.left_s for trial in running if trial.left_s is not None]
        whole = [trial.seconds for trial in self.trials if trial.status == FINISHED and trial.seconds]
        whole = whole or [trial.seconds + trial.left_s for trial in running if trial.left_s is not None]
        if not running or not whole:
            return None
        each = statistics.fmean(whole)
        left = sum(known) + each * (waiting + len(running) - len(known))
        return max(left / len(running), *known, 0.0)


def sweep_progress(folder: Path) -> SweepProgress:
    """Reads the progress of a sweep.

    Raises:
        RunFolderError: sweep.yaml is missing or damaged.
    """
    planned, _ = sweep_definition(folder)
    trials = [_trial(trial) for trial in planned]
    try:
        is_active = holder(folder) is not None
    except OSError:
        # A file system without locks: the trials alone decide.
        is_active = False
    return SweepProgress(folder, trials, is_active or any(trial.status == RUNNING for trial in trials))


def progress_view(progress: SweepProgress) -> Group:
    """Returns the counts of trials by status, the time that is left, and a row for each trial that is not done."""
    counts = Counter(trial.status for trial in progress.trials)
    words = [f"{counts[status]} {status}" for status in (FINISHED, STOPPED, *reversed(SHOWN)) if counts[status]]
    if progress.is_active:
        counts[WAITING] += counts.pop(ABSENT, 0)
    words += [f"{counts[status]} {word}" for status, word in WAITING_WORDS.items() if counts[status]]
    left = progress.left_s
    # After the last round only the last step of a method is left, whose time is unknown.
    end = f", about {duration(left)} left" if left else ""
    head = Text(f"{progress.folder.name}: {progress.num_done}/{len(progress.trials)} done ({', '.join(words)}){end}")
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in ("trial", "status"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("round", "accuracy", "left"):
        table.add_column(name, no_wrap=True, justify="right")
    shown = [trial for trial in progress.trials if trial.status in SHOWN]
    for trial in shown:
        left_text = "" if trial.left_s is None else duration(trial.left_s) if trial.left_s else "last step"
        table.add_row(*map(Text, (trial.name, trial.status, trial.round, trial.accuracy, left_text)))
    reasons = [Text(f"{trial.name}: {trial.reason}") for trial in shown if trial.reason]
    return Group(head, *([table] if shown else []), *reasons)


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units, such as `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _trial(planned: Planned) -> TrialProgress:
    if not (planned.folder / "run.json").exists():
        return TrialProgress(planned.name, planned.status or ABSENT)
    try:
        run = read_run(planned.folder)
        row = RunRow(run, values_of(run))
    except DAMAGE as error:
        return TrialProgress(planned.name, DAMAGED, reason=str(error))
    status = planned.state_of(run)
    seconds = wall_clock_s(run.records)
    left_s = _left_s(run, seconds) if status == RUNNING else None
    accuracy = row.text("accuracy") if run.records and row.values.get(HEADLINE_METRICS["accuracy"]) is not None else ""
    return TrialProgress(planned.name, status, row.text("round"), accuracy, seconds, left_s, run.status.reason)


def _left_s(run: RunFacts, seconds: float) -> float | None:
    if not run.last_round or not isinstance(run.num_rounds, int):
        return None
    return seconds / run.last_round * (run.num_rounds - run.last_round)
