"""Imports the user's own backbones, data loader and trackers that a config names, to report each fault with its key."""

from collections.abc import Iterator

from fedvtc.config.names import TIMM, TRACKERS
from fedvtc.config.own_code import SIGNATURES, OwnCodeError, imported, own_function
from fedvtc.config.problems import Problem
from fedvtc.config.registered import Kind, import_path
from fedvtc.config.schema import Config


def own_code_problems(config: Config) -> Iterator[Problem]:
    """Yields a problem, with `where` empty, for each name whose code cannot be imported or is no function.

    The code of the method is not imported here: the config has the keys of the method, so its code is imported already.
    """
    functions: list[tuple[str, Kind, str]] = [("data.name", "data", config.data.name)]
    for index, backbone in enumerate(config.population.backbones):
        if not backbone.name.startswith(TIMM):
            functions.append((f"population.backbones[{index}].name", "backbones", backbone.name))
    for key, kind, name in functions:
        try:
            path = import_path(kind, name, ())
            if path is not None:
                own_function(path, SIGNATURES[kind])
        except OwnCodeError as error:
            yield Problem(key, error.what, fix=error.fix)
    for index, name in enumerate(config.tracking.trackers):
        try:
            if name not in TRACKERS:
                imported(name, "class")
        except OwnCodeError as error:
            yield Problem(f"tracking.trackers[{index}]", error.what, fix=error.fix)
