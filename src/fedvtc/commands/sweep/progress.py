"""Prints the progress of a sweep that Ray Tune runs."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.tune.progress_reporter import TrialProgressCallback
from ray.util.placement_group import placement_group_table

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import is_lost
from fedvtc.commands.sweep.trials import Trial
from fedvtc.errors import ClusterError
from fedvtc.reporting.lines import say

NOTICE_S = 5.0
"""Seconds without a running trial after which a line names the missing slots."""


class Progress(TrialProgressCallback):
    """Prints a line when a trial starts, ends or waits for slots; saves the names of trials that are stopped early.

    Subclasses Tune's own callback, because Tune otherwise adds that callback, which prints more lines. Tune pickles
    this object with its state, so attributes must be picklable.

    Args:
        folder: the sweep folder.
        resources: the slots that each trial reserves, as text, by name.
    """

    def __init__(self, folder: SweepFolder, resources: Mapping[str, str]) -> None:
        super().__init__()
        self._folder, self._resources = folder, resources
        self._idle_since_s: float | None = None
        self._has_noticed = False

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Prints a line while no trial has slots, and ends the sweep after `placement.wait_timeout_s`.

        Raises:
            ClusterError: no trial has run for `placement.wait_timeout_s`, if that is above 0.
        """
        waiting = [self._trial(trial) for trial in trials if trial.status == "PENDING"]
        if not waiting or any(trial.status == "RUNNING" for trial in trials):
            self._idle_since_s, self._has_noticed = None, False
            return
        now_s = time.monotonic()
        self._idle_since_s = self._idle_since_s or now_s
        if now_s - self._idle_since_s < NOTICE_S:
            return
        if _has_placement_group():
            # The trial has its slots; its process is starting, which may take a while.
            self._idle_since_s, self._has_noticed = None, False
            return
        needed = self._resources[waiting[0].name]
        timeout_s = max(trial.config.placement.wait_timeout_s for trial in waiting)
        if not self._has_noticed:
            say(f"waiting{f' up to {timeout_s:g} s' if timeout_s else ''} for {needed}")
            self._has_noticed = True
        if 0 < timeout_s < now_s - self._idle_since_s:
            fix = "Set placement.wait_timeout_s higher, or placement.cpus_per_actor lower."
            raise ClusterError(f"placement: {needed} did not come free in {timeout_s:g} s. {fix}")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Prints nothing, because the log of the trial has a line for each round."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Prints that a trial starts or resumes."""
        say(f"{_name(trial)}: {'resumes' if self._trial(trial).has_run else 'starts'}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Prints the accuracy of a trial that finished or was stopped early."""
        mine = self._trial(trial)
        record = self._folder.last_record(mine)
        accuracy = record.get("test/accuracy/mean")
        result = f", accuracy {accuracy:.3f}" if accuracy is not None else ""
        if self._folder.state(mine) != "finished":
            round = int(trial.last_result.get("round", 0))
            self._folder.add_stopped_early(mine.name, round)
            say(f"{mine.name}: stopped early after round {round}{result}")
        else:
            say(f"{mine.name}: finished{result}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Prints that a trial failed, or that its process was lost; the reason is printed when the sweep ends."""
        # Tune has written the file in its local folder, and has not copied it to the sweep folder yet.
        file = trial.pickled_error_file
        error = cloudpickle.loads(Path(file).read_bytes()) if file else None
        say(f"{_name(trial)}: {'lost' if is_lost(error) else 'failed'}")

    def _trial(self, trial: Any) -> Trial:
        return next(mine for mine in self._folder.sweep.trials if mine.name == _name(trial))


def _has_placement_group() -> bool:
    """True if a placement group of this driver is ready; group ids end in the job id of their driver."""
    job = ray.get_runtime_context().get_job_id()
    groups: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return any(number.endswith(job) and group["state"] == "CREATED" for number, group in groups.items())


def _name(trial: Any) -> str:
    return str(trial.config["trial"])
