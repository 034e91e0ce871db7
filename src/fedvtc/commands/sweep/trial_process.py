"""A trial in its own process: the coordinator of one federation. Imports nothing heavy at the top."""

import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.config.schema import Config
from fedvtc.config.secrets import carries_secret
from fedvtc.errors import ClientError, FedvtcError, Interrupted
from fedvtc.tracking import Tracker
from fedvtc.tracking.wandb.session import VARIABLES

CARRIED = ("FEDVTC_DATA", "WANDB_BASE_URL", *VARIABLES.values())
"""Variables that a trial has from who started the sweep."""


class TrialError(Exception):
    """Why a trial failed, in one line; its log has the rest."""


def is_lost(error: BaseException | None) -> bool:
    """Whether the process of a trial is gone, as with its node or for want of memory; not where its code raised."""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


@dataclass(frozen=True)
class Task:
    """What the process of a trial needs to know.

    Attributes:
        config: of the run.
        log: gets all that it prints.
        folder: that relative paths of the config start from, where this machine has it.
        environment: variables of who started the sweep, which the nodes of a cluster need not have.
        metric: a key of the records that is reported to Ray Tune; None reports nothing.
    """

    config: Config
    log: Path
    folder: Path
    environment: Mapping[str, str]
    metric: str | None


class Reporter(Tracker):
    """Tells Ray Tune how a trial does, and hears there whether it is to go on.

    The last round is not told, for a rung may lie there, and who is stopped saves nothing then but the end of the run.

    Args:
        metric: a key of the records.
        num_rounds: of the run.
    """

    def __init__(self, metric: str, num_rounds: int) -> None:
        self._metric, self._num_rounds = metric, num_rounds

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Reports the records of rounds that hold the metric, but for the last."""
        if record["phase"] != "round" or record["round"] >= self._num_rounds or record.get(self._metric) is None:
            return
        from ray import tune

        try:
            tune.report({"round": record["round"], self._metric: float(record[self._metric])})
        except SystemExit:
            # It is to end: all that the run has open is closed on the way.
            raise Interrupted(signal.SIGTERM) from None


def carried() -> dict[str, str]:
    """What a trial takes along of this environment: where the data are, and what wins over `tracking.wandb`.

    Ray Tune keeps it on the disk, so nothing secret.
    """
    found = {name: os.environ[name] for name in CARRIED if name in os.environ}
    return {name: value for name, value in found.items() if not carries_secret(value)}


def settle_in(task: Task) -> None:
    """Gives this process the folder and the variables that a trial would have where the sweep was started."""
    if task.folder.is_dir():
        os.chdir(task.folder)
    os.environ.update(task.environment)


def run_trial(task: Task) -> None:
    """Runs a federation, or goes on with it, inside the placement group of this process.

    Raises:
        TrialError: it failed.
        SystemExit: it was stopped early.
    """
    import ray

    from fedvtc.runtime.actors.actor import drop_launcher_variables

    drop_launcher_variables()
    if not ray.get_gpu_ids():
        # Ray shows a process that has reserved none all that its node has.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    settle_in(task)
    with task.log.open("a", buffering=1, encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        from fedvtc.federation.launch import run_federation

        trackers = [Reporter(task.metric, task.config.run.rounds)] if task.metric else []
        try:
            run_federation(task.config, plain=True, trackers=trackers)
        except FedvtcError as error:
            print(f"fedvtc: {error}", file=sys.stderr)
            if isinstance(error, ClientError) and error.trace:
                print(error.trace, file=sys.stderr)
            raise TrialError(str(error).splitlines()[-1]) from None
        except KeyboardInterrupt:
            raise SystemExit(0) from None
        except Exception as error:
            traceback.print_exc()
            raise TrialError(f"{type(error).__name__}: {error}") from None
