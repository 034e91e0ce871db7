"""From `tracking.trackers` to trackers."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.background import BackgroundTracker
from fedvtc.tracking.console import PlainConsole
from fedvtc.tracking.guard import GuardedTracker
from fedvtc.tracking.lenient import FAILURES, LenientTracker, reason
from fedvtc.tracking.pictures import PictureTracker
from fedvtc.tracking.record_files import CsvTracker, JsonlTracker

KEY = "tracking.trackers"


def make_trackers(config: Config, class_names: Sequence[str], report: Callable[[str], None]) -> list[Tracker]:
    """The trackers that a config asks for, none of which can end the run.

    Args:
        config: of the run.
        class_names: of the data set, in class order.
        report: gets a line when one of them fails, and what else it has to say.

    Raises:
        ConfigError: a class of the user's own cannot be had, or W&B does not know the mode in the environment.
    """
    return [_make(name, config, class_names, report) for name in dict.fromkeys(config.tracking.trackers)]


def _make(name: str, config: Config, class_names: Sequence[str], report: Callable[[str], None]) -> Tracker:
    if name == "wandb":
        from fedvtc.tracking.wandb.tracker import LOCAL_S, WandbTracker

        _check_wandb_mode()
        tracker = WandbTracker(class_names, report)
        wait_s = config.tracking.wandb.timeout_s + LOCAL_S
        return BackgroundTracker(LenientTracker(tracker, name, tracker.tell), wait_s, tracker.give_up)
    if name == "tensorboard":
        from fedvtc.tracking.tensorboard import TensorBoardTracker

        return LenientTracker(TensorBoardTracker(class_names), name, report)
    return LenientTracker(_own(name), name, report)


def _check_wandb_mode() -> None:
    from fedvtc.tracking.wandb.session import MODES, VARIABLES

    variable = VARIABLES["mode"]
    mode = os.environ.get(variable)
    # W&B itself looks at it too, and takes an empty one for a mode.
    if mode is not None and mode not in MODES:
        raise ConfigError([f"{variable}={mode}: unknown mode. Set online, offline or disabled, or unset it."])


def _own(name: str) -> Tracker:
    """Makes a tracker of the user's own.

    Raises:
        ConfigError: its module cannot be imported, it is no tracker, or it cannot be made without arguments.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    # A module may fail in any way while it is imported.
    except FAILURES as error:
        fix = "Install it, or put its folder on PYTHONPATH."
        raise ConfigError([f"{KEY}: {module_name} cannot be imported ({reason(error)}). {fix}"]) from None
    made = getattr(module, class_name, None)
    if made is None:
        raise ConfigError([f"{KEY}: {module_name} has no {class_name}. Name a class of it."])
    if not (isinstance(made, type) and issubclass(made, Tracker)):
        raise ConfigError([f"{KEY}: {name} is not a tracker. Derive it from fedvtc.tracking.Tracker."])
    try:
        return made()
    except FAILURES as error:
        fix = "It is made without arguments."
        raise ConfigError([f"{KEY}: {name} cannot be made ({reason(error)}). {fix}"]) from None


def all_trackers(
    config: Config, class_names: Sequence[str], console: PlainConsole, on_disk_error: Callable[[str], None]
) -> list[Tracker]:
    """The trackers of a run: its files first, then those of `tracking.trackers`, then the console.

    Args:
        config: of the run.
        class_names: of the data set, in class order.
        console: shows the run.
        on_disk_error: gets a line when a file of the run folder cannot be written.

    Raises:
        ConfigError: see `make_trackers`.
    """
    files: list[Tracker] = [JsonlTracker(), CsvTracker(), PictureTracker(class_names)]
    guarded = [GuardedTracker(tracker, config.runtime.on_disk_error, on_disk_error) for tracker in files]
    # Trackers of the config read files that the first ones have opened.
    return [*guarded, *make_trackers(config, class_names, console.note), console]


@contextmanager
def tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[Callable[[], None]]:
    """Gives what starts the trackers; finishes those that were started, however the block ends."""
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
