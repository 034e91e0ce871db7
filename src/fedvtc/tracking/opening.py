"""Makes the trackers of a run, and starts and finishes them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from fedvtc.config.own_code import OwnCodeError, fault, own_class
from fedvtc.config.problems import Problem
from fedvtc.config.schema import Config
from fedvtc.errors import FAILURES, ConfigError
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.confusion_file import ConfusionTracker
from fedvtc.tracking.console import PlainConsole
from fedvtc.tracking.isolation import DiskErrors, IsolatedTracker, OptionalTracker
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.record_files import CsvTracker, JsonlTracker
from fedvtc.tracking.tracker_thread import TrackerThread

KEY = "tracking.trackers"


def all_trackers(
    config: Config, class_names: Sequence[str], console: PlainConsole, on_disk_error: Callable[[str], None]
) -> list[Tracker]:
    """Makes the trackers of a run: files of the run folder first, then those of `tracking.trackers`, then the console.

    Args:
        config: the run's config.
        class_names: class names of the data set, in class order.
        console: the tracker that shows the run.
        on_disk_error: gets a line when a file of the run folder cannot be written.

    Raises:
        ConfigError: see `make_trackers`.
    """
    files: list[Tracker] = [JsonlTracker(), CsvTracker(), ConfusionTracker(), PictureTracker(class_names)]
    isolated = [IsolatedTracker(file, DiskErrors(config.runtime.on_disk_error, on_disk_error)) for file in files]
    # The trackers of the config read files that the first trackers have opened and cut.
    return [*isolated, *make_trackers(config, class_names, console.note), console]


def make_trackers(config: Config, class_names: Sequence[str], report: Callable[[str], None]) -> list[Tracker]:
    """Makes the trackers of `tracking.trackers`, isolated so that a failed tracker does not end the run.

    Args:
        config: the run's config.
        class_names: class names of the data set, in class order.
        report: gets a line when a tracker fails, and further lines that trackers have for the user.

    Raises:
        ConfigError: if a user's own class cannot be imported or made, or WANDB_MODE is unknown to W&B.
    """
    return [_make(name, config, class_names, report) for name in dict.fromkeys(config.tracking.trackers)]


def _make(name: str, config: Config, class_names: Sequence[str], report: Callable[[str], None]) -> Tracker:
    if name == "wandb":
        from fedvtc.tracking.wandb.tracker import LOCAL_S, WandbTracker

        _check_wandb_mode()
        tracker = WandbTracker(class_names, report)
        thread = TrackerThread(config.tracking.wandb.timeout_s + LOCAL_S, tracker.give_up)
        return IsolatedTracker(tracker, OptionalTracker(name, tracker.report), thread)
    if name == "tensorboard":
        from fedvtc.tracking.tensorboard import TensorBoardTracker

        return IsolatedTracker(TensorBoardTracker(class_names), OptionalTracker(name, report))
    return IsolatedTracker(_own(name), OptionalTracker(name, report))


def _check_wandb_mode() -> None:
    from fedvtc.tracking.wandb.session import MODES, VARIABLES

    variable = VARIABLES["mode"]
    mode = os.environ.get(variable)
    # W&B reads the variable too, and treats an empty text as a mode.
    if mode is not None and mode not in MODES:
        raise ConfigError([f"{variable}={mode}: unknown mode. Set online, offline or disabled, or unset {variable}."])


def _own(name: str) -> Tracker:
    """Makes a tracker of a user's own class.

    Raises:
        ConfigError: if the module cannot be imported, the class is no tracker, or its constructor needs arguments.
    """
    try:
        made: Callable[[], Tracker] = own_class(name, Tracker, "fedvtc.tracking.Tracker")
    except OwnCodeError as error:
        raise ConfigError([str(Problem(KEY, error.what, fix=error.fix))]) from None
    try:
        return made()
    except FAILURES as error:
        fix = "Give the class a constructor that needs no arguments and raises no error."
        raise ConfigError([f"{KEY}: {name} cannot be made ({fault(error)}). {fix}"]) from None


@contextmanager
def tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[Callable[[], None]]:
    """Yields a function that starts the trackers; finishes the started trackers however the block ends."""
    with ExitStack() as stack:
        outcome = {"status": "failed"}

        def start() -> None:
            for tracker in trackers:
                tracker.start(info)
                stack.callback(_finish, tracker, outcome)

        try:
            yield start
        except KeyboardInterrupt:
            outcome["status"] = "interrupted"
            raise
        outcome["status"] = "finished"


def _finish(tracker: Tracker, outcome: Mapping[str, str]) -> None:
    tracker.finish(outcome["status"])
