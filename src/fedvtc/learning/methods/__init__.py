"""Federated methods: one file each, or a folder where a method is long. Training loops and messages lie elsewhere.

Every module here defines `METHOD`, and the name of the module is the name of the method. Exceptions are `base` and
helpers that begin with `_`. A method elsewhere has the name `package.module:Class`, or a short name that an installed
package registers for the class.
Importing this package or a method does not import PyTorch.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from fedvtc.config.own_code import OwnCodeError, is_import_path, own_calls
from fedvtc.config.registered import import_path, registered
from fedvtc.config.schema import MethodConfig
from fedvtc.learning.methods._largest import largest_bytes, run_bytes, undefined_sizes
from fedvtc.learning.methods._own import as_result, as_step, own_method
from fedvtc.learning.methods.base import Method, ServerState, Task

__all__ = [
    "Method",
    "ServerState",
    "Task",
    "as_result",
    "as_step",
    "build",
    "config_classes",
    "largest_bytes",
    "method_class",
    "names",
    "run_bytes",
    "undefined_sizes",
]


def names() -> list[str]:
    """Returns the names of all methods, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if name != "base" and not name.startswith("_"))


class ConfigClasses(Mapping[str, type[MethodConfig]]):
    """The section of each method, by the name of the method.

    Holds registered names and `package.module:Class` too, and imports the class when asked for; iterating yields
    built-in methods only.

    Args:
        refusal: the remedy of the error for a class of the user's own; empty imports such a class.
    """

    def __init__(self, refusal: str = "") -> None:
        self._names, self._refusal = names(), refusal

    def __getitem__(self, name: str) -> type[MethodConfig]:
        """Returns the section of a method.

        Raises:
            OwnCodeError: the class cannot be imported, is no method, or is refused.
        """
        if name not in self:
            raise KeyError(name)
        if self._refusal and is_import_path(name):
            raise OwnCodeError(f"{name} is code that is not imported here", self._refusal)
        return method_class(name).config_class

    def __contains__(self, name: object) -> bool:
        """Returns True for built-in methods, registered names and import paths."""
        return name in self._names or (
            isinstance(name, str) and (is_import_path(name) or name in registered("methods"))
        )

    def __iter__(self) -> Iterator[str]:
        """Yields the names of built-in methods, sorted."""
        return iter(self._names)

    def __len__(self) -> int:
        """Returns the number of built-in methods."""
        return len(self._names)


def config_classes(refusal: str = "") -> ConfigClasses:
    """Returns the section of each method, by the name of the method; see `ConfigClasses`."""
    return ConfigClasses(refusal)


def build(config: MethodConfig, task: Task) -> Method[Any]:
    """Builds the method that a config names.

    Raises:
        OwnCodeError: the class cannot be imported, or is no method, or its constructor fails.
    """
    with own_calls():
        method = method_class(config.name)(config, task)
        # Read here, because the run reads them after the last round.
        _ = method.has_receive, method.has_closing, method.has_finish
    method._complete()
    return method


def method_class(name: str) -> type[Method[Any]]:
    """Returns the class of a method: of a built-in one, or of one of the user's own as `package.module:Class`.

    Raises:
        OwnCodeError: the class cannot be imported, or is no method.
    """
    method: type[Method[Any]]
    path = import_path("methods", name, names())
    if path is None:
        method = import_module(f"{__name__}.{name}").METHOD
        return method
    return own_method(path, name)
