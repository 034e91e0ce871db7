"""Runs the trials of a sweep with Ray Tune, and restarts trials whose process was lost."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fedvtc.commands.sweep.experiment import Experiment
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.shared_rounds import sources
from fedvtc.commands.sweep.trial_process import is_lost
from fedvtc.commands.sweep.trials import Trial
from fedvtc.errors import ClusterError
from fedvtc.federation.stopper import Stopper
from fedvtc.reporting.comparison.trials import FINISHED
from fedvtc.runtime.actors.cluster import connected

MAX_RESTARTS = 3
"""Restarts of a trial whose process was lost, before the trial counts as failed."""
TUNE_SETTINGS = {
    # The run folders hold the records.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Only Tune's older output can be turned off.
    "RAY_AIR_NEW_OUTPUT": "0",
    # `Stopper` handles signals.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Seconds between saves of Tune's state; with the default of 10, short trials would be missing in the state.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # Relative paths in a config start from the folder where the sweep was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_trials(folder: SweepFolder, notify: Callable[[str], None]) -> dict[str, str]:
    """Runs the pending trials of a sweep on a Ray cluster, and waits until they end.

    A trial whose process was lost, for instance with its node, is restarted after the others have ended. A trial that
    failed with an error of its own is not restarted, because the error would occur again. Trials that start from the
    rounds of another pending trial run after all others.

    Args:
        folder: the sweep folder, opened.
        notify: prints a line for the user.

    Returns:
        The reason of each failed trial, by name.

    Raises:
        ClusterError: no cluster answers, or no slots came free in `placement.wait_timeout_s`.
        Interrupted: a signal ended the sweep.
    """
    pending = folder.pending()
    if not pending:
        return {}
    os.environ.update(TUNE_SETTINGS)
    stopper = Stopper(notify, 0.0, owns_process=True)
    cluster = pending[0].config.cluster
    with stopper.listening(), connected(cluster, f"sweep-{folder.sweep.name}"), _quiet():
        later = {name for name, source in sources(folder).items() if folder.state(source) != FINISHED}
        failures = _run_and_restart(folder, [trial for trial in pending if trial.name not in later], notify)
        if later:
            notify(f"{folder.sweep.name}: {len(later)} of {len(pending)} trials start from the rounds of other trials")
            failures |= _run_and_restart(folder, [trial for trial in pending if trial.name in later], notify)
        return failures


def _run_and_restart(folder: SweepFolder, pending: Sequence[Trial], notify: Callable[[str], None]) -> dict[str, str]:
    failures: dict[str, str] = {}
    for num_restarts in range(1 + MAX_RESTARTS):
        try:
            errors = Experiment(folder, pending, notify).run()
        except ClusterError as error:
            if num_restarts == 0:
                raise
            # The lost trials may no longer fit the cluster; the results of the other trials are still reported.
            return failures | {trial.name: str(error) for trial in pending}
        can_restart = num_restarts < MAX_RESTARTS
        pending = [trial for trial in pending if can_restart and is_lost(errors.get(trial.name))]
        restarted = {trial.name for trial in pending}
        failures |= {name: _reason(error) for name, error in errors.items() if name not in restarted}
        if not pending:
            break
    return failures


def _reason(error: BaseException | str) -> str:
    """Returns the last line of an error from Ray, without the class names before the message."""
    if not error:
        return "the reason could not be saved"
    if is_lost(error):
        return f"the process of the trial was lost {1 + MAX_RESTARTS} times (node lost or out of memory)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last.partition("TrialError: ")[2] or last


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the loggers and warnings of Ray Tune."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
