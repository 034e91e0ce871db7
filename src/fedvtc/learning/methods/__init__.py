"""Federated methods: one file each, or a folder where a method is long. Training loops and messages lie elsewhere.

Every module here defines `METHOD`, and the name of the module is the name of the method. Exceptions are `base` and
helpers that begin with `_`.
Importing this package or a method does not import PyTorch.
"""

import pkgutil
from importlib import import_module
from typing import Any

from fedvtc.config.schema import MethodConfig
from fedvtc.learning.methods._largest import largest_bytes
from fedvtc.learning.methods.base import Method, ServerState, Task

__all__ = ["Method", "ServerState", "Task", "build", "config_classes", "largest_bytes", "names"]


def names() -> list[str]:
    """Returns the names of all methods, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if name != "base" and not name.startswith("_"))


def config_classes() -> dict[str, type[MethodConfig]]:
    """Returns the section of each method, by the name of the method."""
    return {name: _method_class(name).config_class for name in names()}


def build(config: MethodConfig, task: Task) -> Method[Any]:
    """Builds the method that a config names."""
    return _method_class(config.name)(config, task)


def _method_class(name: str) -> type[Method[Any]]:
    method: type[Method[Any]] = import_module(f"{__name__}.{name}").METHOD
    return method
