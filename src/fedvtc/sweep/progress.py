"""What the user hears of trials while Ray Tune runs them."""

from typing import TYPE_CHECKING, Any

from ray.tune.progress_reporter import TrialProgressCallback

from fedvtc.sweep.folder import SweepFolder

if TYPE_CHECKING:
    from fedvtc.sweep.definition import Trial


class Progress(TrialProgressCallback):
    """A line when a trial begins and when it ends; what is stopped early is written down.

    Of this class, because Tune adds its own where it is given none, and that prints lines beside these. It is pickled
    with Tune's state, so it holds nothing of this process.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: SweepFolder) -> None:
        super().__init__()
        self._folder = folder

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Says nothing: records are in the log of the trial."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that it begins or goes on."""
        begun = (self._trial(trial).path / "run.json").exists()
        print(f"{_name(trial)}: {'goes on' if begun else 'begins'}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says how it did, or that it was stopped early."""
        mine = self._trial(trial)
        record = self._folder.last_record(mine)
        accuracy = record.get("test/accuracy/mean")
        how = f", accuracy {accuracy:.3f}" if accuracy is not None else ""
        if self._folder.state(mine) != "finished":
            round = int(trial.last_result.get("round", 0))
            self._folder.note_stopped(mine.name, round)
            print(f"{mine.name}: stopped early after round {round}{how}", flush=True)
        else:
            print(f"{mine.name}: finished{how}", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that it failed; why is told at the end."""
        print(f"{_name(trial)}: failed", flush=True)

    def _trial(self, trial: Any) -> "Trial":
        return next(mine for mine in self._folder.sweep.trials if mine.name == _name(trial))


def _name(trial: Any) -> str:
    return str(trial.config["trial"])
