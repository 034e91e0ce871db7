"""What the user hears of trials while Ray Tune runs them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.tune.progress_reporter import TrialProgressCallback
from ray.util.placement_group import placement_group_table

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import is_lost
from fedvtc.errors import ClusterError
from fedvtc.reporting.lines import say

if TYPE_CHECKING:
    from fedvtc.commands.sweep.trials import Trial


TELL_S = 5.0
"""Seconds without a trial after which the user hears what is waited for."""


class Progress(TrialProgressCallback):
    """A line when a trial begins and when it ends, and when none has room; what is stopped early is written down.

    Of this class, because Tune adds its own where it is given none, and that prints lines beside these. It is pickled
    with Tune's state, so it holds nothing of this process.

    Args:
        folder: of the sweep.
        rooms: what each trial asks Ray for, in words, by name.
    """

    def __init__(self, folder: SweepFolder, rooms: Mapping[str, str]) -> None:
        super().__init__()
        self._folder, self._rooms = folder, rooms
        self._idle_since_s: float | None = None
        self._is_told = False

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Says that room is waited for, and ends the sweep where none came free.

        Raises:
            ClusterError: no trial runs, and `placement.wait_timeout_s`, if above 0, has passed.
        """
        waiting = [self._trial(trial) for trial in trials if trial.status == "PENDING"]
        if not waiting or any(trial.status == "RUNNING" for trial in trials):
            self._idle_since_s, self._is_told = None, False
            return
        now_s = time.monotonic()
        self._idle_since_s = self._idle_since_s or now_s
        if now_s - self._idle_since_s < TELL_S:
            return
        if _has_room():
            # Its process is coming up, which may take a while.
            self._idle_since_s, self._is_told = None, False
            return
        what, timeout_s = self._rooms[waiting[0].name], max(trial.config.placement.wait_timeout_s for trial in waiting)
        if not self._is_told:
            say(f"waiting{f' up to {timeout_s:g} s' if timeout_s else ''} for room for {what}")
            self._is_told = True
        if 0 < timeout_s < now_s - self._idle_since_s:
            fix = "Set placement.wait_timeout_s higher, or placement.cpus_per_actor lower."
            raise ClusterError(f"placement: {what} found no room in {timeout_s:g} s. {fix}")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Says nothing: records are in the log of the trial."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that it begins or goes on."""
        begun = (self._trial(trial).path / "run.json").exists()
        say(f"{_name(trial)}: {'goes on' if begun else 'begins'}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says how it did, or that it was stopped early."""
        mine = self._trial(trial)
        record = self._folder.last_record(mine)
        accuracy = record.get("test/accuracy/mean")
        how = f", accuracy {accuracy:.3f}" if accuracy is not None else ""
        if self._folder.state(mine) != "finished":
            round = int(trial.last_result.get("round", 0))
            self._folder.note_stopped(mine.name, round)
            say(f"{mine.name}: stopped early after round {round}{how}")
        else:
            say(f"{mine.name}: finished{how}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that it failed, and why at the end; or that it is lost, after which it may begin again."""
        # In its folder on this machine, for it is not in that of the sweep yet.
        file = trial.pickled_error_file
        error = cloudpickle.loads(Path(file).read_bytes()) if file else None
        say(f"{_name(trial)}: {'lost' if is_lost(error) else 'failed'}")

    def _trial(self, trial: Any) -> "Trial":
        return next(mine for mine in self._folder.sweep.trials if mine.name == _name(trial))


def _has_room() -> bool:
    """Whether a placement group of this driver is there; their numbers end in that of the driver's job."""
    job = ray.get_runtime_context().get_job_id()
    groups: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return any(number.endswith(job) and group["state"] == "CREATED" for number, group in groups.items())


def _name(trial: Any) -> str:
    return str(trial.config["trial"])
