"""One experiment of Ray Tune over pending trials: restored from Tune's saved state, or started from scratch."""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.resources import describe, placement_group
from fedvtc.commands.sweep.shared_rounds import finished_sources
from fedvtc.commands.sweep.trial_process import TrialTask, copied_environment, run_trial
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.config import fingerprint
from fedvtc.config.code_hash import code_hashes
from fedvtc.errors import RunFolderError, UserError
from fedvtc.runtime.actors.cluster import all_nodes, free_nodes, may_grow

PROBE_BYTES = 2**16
"""Bytes of the file that shows if the disk is full; the files of Ray Tune are smaller."""


class Experiment:
    """Runs trials as trials of Ray Tune, each in a placement group with its coordinator and its actors.

    Args:
        folder: the sweep folder, opened.
        pending: the trials to run.
        notify: prints a line for the user.
    """

    def __init__(self, folder: SweepFolder, pending: Sequence[Trial], notify: Callable[[str], None]) -> None:
        self._folder, self._sweep, self._pending, self._notify = folder, folder.sweep, pending, notify
        free, total, grows = free_nodes(), all_nodes(), may_grow()
        num_at_once = min(len(self._sweep.trials), self._sweep.max_concurrent or len(self._sweep.trials))
        self._groups = {
            trial.name: placement_group(trial.config, free, total, num_at_once, may_grow=grows)
            for trial in self._sweep.trials
        }
        # A changed sweep, or a cluster of another size, gets a new folder and so a new state of Tune.
        self._path = self._folder.path / "tune" / digest(self._sweep, self._groups)

    def run(self) -> dict[str, BaseException | str]:
        """Runs the trials; returns the error of each failed trial, by name: text if Tune could not save the error.

        Raises:
            ClusterError: no slots came free in `placement.wait_timeout_s`.
            RunFolderError: the files of Ray Tune cannot be written.
        """
        try:
            return self._run()
        except UserError:
            raise
        # On a full disk, Tune raises errors of many kinds.
        except Exception:
            check_writable(self._path)
            raise

    def _run(self) -> dict[str, BaseException | str]:
        tuner = self._restored()
        if tuner is not None:
            try:
                return _errors(tuner.fit())
            except UserError:
                raise
            # Failed trials raise no error here, so this error means that Tune cannot continue from its state.
            except Exception as error:
                self._discard_state(error)
        return _errors(self._new().fit()) if self._pending else {}

    def _restored(self) -> Any:
        """Returns the Tuner of an earlier start; None if its state is absent, damaged, or contradicts the run folders.

        The run folders decide: Tune's state must have the same unfinished trials.
        """
        from ray import tune

        if not tune.Tuner.can_restore(str(self._path)):
            return None
        try:
            known = tune.ExperimentAnalysis(str(self._path)).trials or []
            waiting = {str(trial.config["trial"]) for trial in known if trial.status != "TERMINATED"}
            if waiting != {trial.name for trial in self._pending}:
                return None
            return tune.Tuner.restore(str(self._path), self._trainable(), resume_unfinished=True, resume_errored=True)
        # Pickled objects that are damaged or of another version may raise any error.
        except Exception as error:
            self._discard_state(error)
            return None

    def _discard_state(self, error: Exception) -> None:
        self._notify(f"{self._path}: Tune's state is damaged ({type(error).__name__}); resuming from the run folders")
        pending = {trial.name for trial in self._pending}
        self._pending = [trial for trial in self._folder.pending() if trial.name in pending]

    def _new(self) -> Any:
        from ray import tune

        from fedvtc.commands.sweep.progress import Progress

        shutil.rmtree(self._path, ignore_errors=True)
        resources = {name: describe(bundles) for name, (_, bundles) in self._groups.items()}
        return tune.Tuner(
            self._trainable(),
            param_space={"trial": tune.grid_search([trial.name for trial in self._pending])},
            tune_config=tune.TuneConfig(
                scheduler=self._scheduler(),
                max_concurrent_trials=self._sweep.max_concurrent,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
                # A process has imported PyTorch already. It would not import the user's own code anew, if that changed.
                reuse_actors=not any(code_hashes(trial.config) for trial in self._sweep.trials),
            ),
            run_config=tune.RunConfig(
                name=self._path.name,
                storage_path=str(self._path.parent),
                callbacks=[Progress(self._folder, resources)],
                verbose=0,
            ),
        )

    def _scheduler(self) -> Any:
        from ray import tune

        asha = self._sweep.asha
        if asha is None:
            return None
        max_rounds = max(trial.config.run.rounds for trial in self._sweep.trials)
        return tune.schedulers.ASHAScheduler(
            time_attr="round",
            metric=asha.metric,
            mode="max",
            # Trials do not report their last round, so no trial is stopped at max_t.
            max_t=max(max_rounds, asha.grace_rounds),
            grace_period=asha.grace_rounds,
            reduction_factor=asha.reduction_factor,
        )

    def _trainable(self) -> Callable[[dict[str, Any]], None]:
        from ray import tune

        tasks = trial_tasks(self._folder)
        groups = {
            name: tune.PlacementGroupFactory([dict(bundle) for bundle in bundles], strategy=strategy)
            for name, (strategy, bundles) in self._groups.items()
        }

        def federation(parameters: dict[str, Any]) -> None:
            run_trial(tasks[parameters["trial"]])

        return tune.with_resources(federation, lambda parameters: groups[parameters["trial"]])  # type: ignore[no-any-return]


def check_writable(path: Path) -> None:
    """Writes a small file into the folder of Tune's state, and removes the file.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        fix = "Free disk space or make the folder writable, and start the sweep again to resume."
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}). {fix}") from None


def trial_tasks(folder: SweepFolder) -> dict[str, TrialTask]:
    """Returns the task of each trial's process, by name."""
    asha, environment, start_from = folder.sweep.asha, copied_environment(), finished_sources(folder)
    metric = None if asha is None else asha.metric
    return {
        trial.name: TrialTask(
            trial.config, folder.log(trial), Path.cwd(), environment, metric, start_from.get(trial.name)
        )
        for trial in folder.sweep.trials
    }


def digest(sweep: Sweep, groups: Mapping[str, Any]) -> str:
    """Returns a digest of everything that Tune pickles and would restore unchanged.

    Tune restores the trials, their placement groups, and the config keys that `Progress` reads.

    Args:
        sweep: the sweep.
        groups: the placement group of each trial, by name.
    """
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
    text = repr((trials, sweep.asha, sweep.max_concurrent, groups))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _errors(results: Any) -> dict[str, BaseException | str]:
    return {str(result.config["trial"]): result.error for result in results if result.error is not None}


def _name_of(trial: Any) -> str:
    return str(trial.config["trial"])
