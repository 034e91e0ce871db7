"""One method, one file, or a folder where it is long: every module here but `base` defines `METHOD` and gives its name.

Importing this package or a method does not import PyTorch.
"""

import pkgutil
from importlib import import_module
from typing import Any

from fedvtc.config.schema import MethodConfig
from fedvtc.learning.methods.base import Method, ServerState, Task

__all__ = ["Method", "ServerState", "Task", "build", "config_classes", "names"]


def names() -> list[str]:
    """The methods there are, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def config_classes() -> dict[str, type[MethodConfig]]:
    """The config of each method, by name."""
    return {name: _method_class(name).config_class for name in names()}


def build(config: MethodConfig, task: Task) -> Method[Any]:
    """The method that the config names."""
    return _method_class(config.name)(config, task)


def _method_class(name: str) -> type[Method[Any]]:
    method: type[Method[Any]] = import_module(f"{__name__}.{name}").METHOD
    return method
