"""Imports the user's own code that a config names as `package.module:Name`: methods, backbones, loaders, trackers."""

import importlib
import os
import sys
from inspect import isabstract
from typing import Any

from fedvtc.errors import FAILURES, reason

SIGNATURES = {
    "backbones": "(num_channels, image_size) -> torch.nn.Module",
    "data": "(path) -> {x_train, y_train, x_test, y_test}",
}
"""Arguments and result of each kind of function."""


class OwnCodeError(Exception):
    """Code of the user's own that cannot be used.

    Attributes:
        what: the fault, without a full stop.
        fix: the remedy, as a sentence.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix


def is_import_path(name: str) -> bool:
    """Returns True if a name has the form `package.module:Name`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def own_class(name: str, base: type, base_name: str) -> Any:
    """Imports a class; modules in the working folder are found too, after installed modules.

    Args:
        name: `package.module:Name`.
        base: the class that the class must derive from.
        base_name: the dotted name under which a user imports `base`.

    Raises:
        OwnCodeError: the module cannot be imported, or has no such class, or the class lacks methods of `base`.
    """
    found = imported(name, "class")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise OwnCodeError(f"{name} is not a {base.__name__.lower()}", f"Derive the class from {base_name}.")
    if isabstract(found):
        missing = " and ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise OwnCodeError(f"{name} does not define {missing}", f"Define {missing} as {base_name} describes.")
    return found


def own_function(name: str, signature: str) -> Any:
    """Imports a function, or another callable; modules in the working folder are found too, after installed modules.

    Args:
        name: `package.module:name`.
        signature: the arguments and the result of the function, for the error.

    Raises:
        OwnCodeError: the module cannot be imported, or has no such function.
    """
    found = imported(name, "function")
    if not callable(found):
        raise OwnCodeError(f"{name} is not a function", f"Name a function {signature}.")
    return found


def find_working_folder() -> str:
    """Adds the working folder to the folders that Python imports from, and returns the folder."""
    folder = os.getcwd()
    if not {"", folder} & set(sys.path):
        # Last, so that no file of the folder replaces an installed module.
        sys.path.append(folder)
    return folder


def imported(name: str, kind: str) -> Any:
    """Imports an object; modules in the working folder are found too, after installed modules.

    Args:
        name: `package.module:Name`.
        kind: `class` or `function`, for the error.

    Raises:
        OwnCodeError: the module cannot be imported, or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    folder = find_working_folder()
    try:
        module = importlib.import_module(module_name)
    except FAILURES as error:
        fix = "Correct the module, or install the modules that it imports."
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            fix = f"Install the module, put its folder on PYTHONPATH, or start fedvtc in its folder, not {folder}."
        raise OwnCodeError(f"{module_name} cannot be imported ({reason(error)})", fix) from None
    found = getattr(module, attribute, None)
    if found is None:
        raise OwnCodeError(f"{module_name} has no {attribute}", f"Name a {kind} of {module.__file__}.")
    return found
