"""Trials as those of Ray Tune: each a federation whose clients are actors in the trial's placement group."""

import hashlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.resources import bundles, described
from fedvtc.commands.sweep.trial_process import Task, carried, is_lost, run_trial
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.config import fingerprint
from fedvtc.errors import ClusterError
from fedvtc.federation.stopper import Stopper
from fedvtc.runtime.actors.cluster import all_nodes, connected, free_nodes, may_grow

MOST_RETURNS = 3
"""How often a trial whose process was lost is started again before it counts as failed."""
TUNE_SETTINGS = {
    # Records are in the run folders.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its older output can be turned off.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Signals are ours to handle.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Seconds between saves of Tune's own state; its default of 10 would forget short trials.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # Paths of a config start from where the sweep was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_trials(folder: SweepFolder, tell: Callable[[str], None]) -> dict[str, str]:
    """Runs what is not done yet of a sweep on a Ray cluster, and waits for it.

    A trial whose process is lost, with its node for instance, is started again once the others have ended; what failed
    by an error of its own would fail again, and is not.

    Args:
        folder: of the sweep, opened.
        tell: gets a line for the user.

    Returns:
        Why each trial that failed did, by name.

    Raises:
        ClusterError: there is no cluster at the address, or no room for a trial in `placement.wait_timeout_s`.
        Interrupted: the sweep was asked to end.
    """
    sweep, pending = folder.sweep, folder.pending()
    if not pending:
        return {}
    os.environ.update(TUNE_SETTINGS)
    stopper = Stopper(tell, 0.0)
    cluster = pending[0].config.cluster
    with stopper.listening(), connected(cluster, f"sweep-{sweep.name}"), _quiet():
        return _failures(folder, pending, tell)


def _failures(folder: SweepFolder, pending: Sequence[Trial], tell: Callable[[str], None]) -> dict[str, str]:
    failures: dict[str, str] = {}
    for num_left in reversed(range(1 + MOST_RETURNS)):
        try:
            errors = _Tuning(folder, pending, tell).run()
        except ClusterError as error:
            if num_left == MOST_RETURNS:
                raise
            # What was lost may not fit any more; what the others came to is told all the same.
            return failures | {trial.name: str(error) for trial in pending}
        pending = [trial for trial in pending if num_left and is_lost(errors.get(trial.name))]
        again = {trial.name for trial in pending}
        failures |= {name: _reason(error) for name, error in errors.items() if name not in again}
        if not pending:
            break
    return failures


class _Tuning:
    """One Tuner over the trials that are pending."""

    def __init__(self, folder: SweepFolder, pending: Sequence[Trial], tell: Callable[[str], None]) -> None:
        self._folder, self._sweep, self._pending, self._tell = folder, folder.sweep, pending, tell
        free, total, grows = free_nodes(), all_nodes(), may_grow()
        self._bundles = {
            trial.name: bundles(trial.config, free, total, self._num_at_once(), may_grow=grows)
            for trial in self._sweep.trials
        }
        # Of another definition, or on a cluster of another size, Tune begins anew in a folder of its own.
        self._path = self._folder.path / "tune" / _digest(self._sweep, self._bundles)

    def run(self) -> dict[str, BaseException]:
        """The errors of the trials that failed, by name."""
        tuner = self._restored()
        if tuner is not None:
            try:
                return _errors(tuner.fit())
            except ClusterError:
                raise
            # Trials that fail raise nothing here: it is Tune's own state that cannot be gone on with.
            except Exception as error:
                self._begin_anew(error)
        return _errors(self._fresh().fit()) if self._pending else {}

    def _restored(self) -> Any:
        """The Tuner of an earlier start, where its state is whole and says what the run folders say; else None."""
        from ray import tune

        if not tune.Tuner.can_restore(str(self._path)):
            return None
        try:
            known = tune.ExperimentAnalysis(str(self._path)).trials or []
            waiting = {str(trial.config["trial"]) for trial in known if trial.status != "TERMINATED"}
            if waiting != {trial.name for trial in self._pending}:
                return None
            return tune.Tuner.restore(str(self._path), self._trainable(), resume_unfinished=True, resume_errored=True)
        # Whatever may come of a file of pickled objects that is torn or of another version.
        except Exception as error:
            self._begin_anew(error)
            return None

    def _begin_anew(self, error: Exception) -> None:
        self._tell(f"{self._path}: not whole ({type(error).__name__}); starting over from the run folders")
        pending = {trial.name for trial in self._pending}
        self._pending = [trial for trial in self._folder.pending() if trial.name in pending]

    def _fresh(self) -> Any:
        from ray import tune

        from fedvtc.commands.sweep.progress import Progress

        shutil.rmtree(self._path, ignore_errors=True)
        rooms = {name: described(parts) for name, (_, parts) in self._bundles.items()}
        asha = self._sweep.asha
        scheduler = None
        if asha is not None:
            most = max(trial.config.run.rounds for trial in self._sweep.trials)
            scheduler = tune.schedulers.ASHAScheduler(
                time_attr="round",
                metric=asha.metric,
                mode="max",
                # No trial reports its last round, so none is ended for having come so far.
                max_t=max(most, asha.grace_rounds),
                grace_period=asha.grace_rounds,
                reduction_factor=asha.reduction_factor,
            )
        return tune.Tuner(
            self._trainable(),
            param_space={"trial": tune.grid_search([trial.name for trial in self._pending])},
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                max_concurrent_trials=self._sweep.max_concurrent,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=self._path.name,
                storage_path=str(self._path.parent),
                callbacks=[Progress(self._folder, rooms)],
                verbose=0,
            ),
        )

    def _trainable(self) -> Callable[[dict[str, Any]], None]:
        from ray import tune

        tasks = _tasks(self._folder)
        groups = {
            name: tune.PlacementGroupFactory([dict(bundle) for bundle in parts], strategy=strategy)
            for name, (strategy, parts) in self._bundles.items()
        }

        def federation(given: dict[str, Any]) -> None:
            run_trial(tasks[given["trial"]])

        return tune.with_resources(federation, lambda given: groups[given["trial"]])  # type: ignore[no-any-return]

    def _num_at_once(self) -> int:
        return min(len(self._sweep.trials), self._sweep.max_concurrent or len(self._sweep.trials))


def _tasks(folder: SweepFolder) -> dict[str, Task]:
    """What the process of each trial needs to know, by name."""
    asha, environment = folder.sweep.asha, carried()
    metric = None if asha is None else asha.metric
    return {
        trial.name: Task(trial.config, folder.log(trial), Path.cwd(), environment, metric)
        for trial in folder.sweep.trials
    }


def _digest(sweep: Sweep, bundles: Mapping[str, Any]) -> str:
    """Of all that Tune keeps pickled and restores as it was: trials, their rooms, and what `Progress` reads of them."""
    trials = [
        (
            trial.name,
            str(trial.path),
            fingerprint(trial.config),
            trial.config.run.rounds,
            trial.config.placement.wait_timeout_s,
        )
        for trial in sweep.trials
    ]
    text = repr((trials, sweep.asha, sweep.max_concurrent, bundles))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _errors(results: Any) -> dict[str, BaseException]:
    return {str(result.config["trial"]): result.error for result in results if result.error is not None}


def _name_of(trial: Any) -> str:
    return str(trial.config["trial"])


def _reason(error: BaseException) -> str:
    """The last line of what Ray made of an error, without the names of classes before it."""
    if is_lost(error):
        return f"its process was lost {1 + MOST_RETURNS} times, with its node or for want of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last.partition("TrialError: ")[2] or last


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune says nothing of its own."""
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
