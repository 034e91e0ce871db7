"""From `tracking.trackers` to trackers."""

import importlib
import os
from collections.abc import Callable, Sequence

from fedvtc.config.operation import TRACKER_NAMES
from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError
from fedvtc.tracking import Tracker
from fedvtc.tracking.background import BackgroundTracker
from fedvtc.tracking.lenient import FAILURES, LenientTracker, reason

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


def foreign_trackers(config: Config) -> list[str]:
    """Those that the package does not bring: `package.module:Class`."""
    return [name for name in config.tracking.trackers if name not in TRACKER_NAMES]


def _make(name: str, config: Config, class_names: Sequence[str], report: Callable[[str], None]) -> Tracker:
    if name == "wandb":
        from fedvtc.tracking.wandb_run import LOCAL_S, WandbTracker

        _check_wandb_mode()
        tracker = WandbTracker(class_names, report)
        wait_s = config.tracking.wandb.timeout_s + LOCAL_S
        return BackgroundTracker(LenientTracker(tracker, name, tracker.tell), wait_s, tracker.give_up)
    if name == "tensorboard":
        from fedvtc.tracking.tensorboard import TensorBoardTracker

        return LenientTracker(TensorBoardTracker(class_names), name, report)
    return LenientTracker(_own(name), name, report)


def _check_wandb_mode() -> None:
    from fedvtc.tracking.wandb_opening import MODES, VARIABLES

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
