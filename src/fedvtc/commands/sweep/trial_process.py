"""The process of one trial: the coordinator of one federation. Imports nothing heavy at the top."""

import os
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.config.schema import Config
from fedvtc.config.secrets import carries_secret
from fedvtc.errors import ClientError, FedvtcError, Interrupted
from fedvtc.learning.peak_memory import restart_peak_memory
from fedvtc.reporting.lines import OUTPUT_ERRORS, complain
from fedvtc.runtime.heavy_imports import fast_imports
from fedvtc.tracking import Tracker
from fedvtc.tracking.wandb.session import VARIABLES

COPIED_VARIABLES = ("FEDVTC_DATA", "WANDB_BASE_URL", *VARIABLES.values())
"""Environment variables that a trial copies from the process that started the sweep."""

END_TIMEOUT_VARIABLE = "TUNE_FUNCTION_THREAD_TIMEOUT_S"
END_TIMEOUT_S = 600
"""Seconds that a trial that is stopped early may take to close its run folder, before Tune gives its process to another
trial; with Tune's 2 seconds, the other trial would fail."""


class TrialError(Exception):
    """The reason why a trial failed, as one line; the log of the trial has the details."""


def is_lost(error: BaseException | str | None) -> bool:
    """True if Ray lost the process of a trial, for instance with its node; False if the trial raised an error."""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


@dataclass(frozen=True)
class TrialTask:
    """The input of a trial's process.

    Attributes:
        config: the config of the run.
        log: the file for the output of the trial.
        folder: the working folder of the sweep, from which relative paths in the config start.
        environment: environment variables of the sweep, which nodes of a cluster may lack.
        metric: the key of the records that is reported to Ray Tune; None reports nothing.
        start_from: the folder of a finished run with the rounds of this one; None computes them.
    """

    config: Config
    log: Path
    folder: Path
    environment: Mapping[str, str]
    metric: str | None
    start_from: Path | None = None


class TuneReporter(Tracker):
    """Reports the metric of each round to Ray Tune, which may stop the trial early.

    The last round is not reported, because Tune could stop a trial that has only its last step left.

    Args:
        metric: the key of the records that is reported.
        num_rounds: the number of rounds of the run.
    """

    def __init__(self, metric: str, num_rounds: int) -> None:
        self._metric, self._num_rounds = metric, num_rounds

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Reports a round that has the metric, except the last round.

        Raises:
            Interrupted: Tune stops the trial.
        """
        if record["phase"] != "round" or record["round"] >= self._num_rounds or record.get(self._metric) is None:
            return
        from ray import tune

        try:
            tune.report({"round": record["round"], self._metric: float(record[self._metric])})
        except SystemExit:
            # As an interruption, so that the run closes its files and trackers.
            raise Interrupted(signal.SIGTERM) from None


def copied_environment() -> dict[str, str]:
    """Returns the `COPIED_VARIABLES` that are set and contain no secret.

    Ray Tune writes the values to disk, so secrets are left out.
    """
    found = {name: os.environ[name] for name in COPIED_VARIABLES if name in os.environ}
    return {name: value for name, value in found.items() if not carries_secret(value)}


def apply_environment(task: TrialTask) -> None:
    """Sets the environment variables of the task, and changes to its working folder if this machine has the folder."""
    if task.folder.is_dir():
        os.chdir(task.folder)
    os.environ.update(task.environment)


def run_trial(task: TrialTask) -> None:
    """Runs or resumes the federation of a trial, with its actors in the placement group of this process.

    The process may have run another trial before.

    Raises:
        TrialError: the trial failed.
        SystemExit: the trial was stopped early.
    """
    import ray

    from fedvtc.runtime.actors.actor import drop_launcher_variables

    drop_launcher_variables()
    if not ray.get_gpu_ids():
        # A process that reserves no GPU would see all GPUs of its node.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    apply_environment(task)
    os.environ[END_TIMEOUT_VARIABLE] = str(END_TIMEOUT_S)
    with fast_imports():
        # Before the redirection: loggers keep the stream of their import, and the log of this trial is closed later.
        from fedvtc.federation.launch import run_federation
    restart_peak_memory()
    with output_to(task.log):
        trackers = [TuneReporter(task.metric, task.config.run.rounds)] if task.metric else []
        try:
            run_federation(task.config, plain=True, trackers=trackers, start_from=task.start_from, needs_start=False)
        except FedvtcError as error:
            complain(f"fedvtc: {error}")
            if isinstance(error, ClientError) and error.trace:
                complain(error.trace)
            raise TrialError(str(error).splitlines()[-1]) from None
        except KeyboardInterrupt:
            raise SystemExit(0) from None
        except Exception as error:
            complain(traceback.format_exc())
            raise TrialError(f"{type(error).__name__}: {error}") from None


@contextmanager
def output_to(file: Path) -> Iterator[None]:
    """Appends the output of the block to a file."""
    log = file.open("a", 1, "utf-8", "backslashreplace")
    try:
        with redirect_stdout(log), redirect_stderr(log):
            yield
    finally:
        # After a full disk the last lines are still in the buffer; a finished trial must not fail for their loss.
        with suppress(*OUTPUT_ERRORS):
            log.close()
