"""Imports the user's own code that a config names as `package.module:Name`: methods, backbones, loaders, trackers."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import isabstract
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from fedvtc.errors import FAILURES, FedvtcError, UserError, reason

SIGNATURES = {
    "backbones": "(num_channels, image_size) -> torch.nn.Module",
    "data": "(path) -> {x_train, y_train, x_test, y_test}",
}
"""Arguments and result of each kind of function."""


class OwnCodeError(UserError):
    """Code of the user's own that cannot be used, or that fails before the training.

    Attributes:
        what: the fault, without a full stop.
        fix: the remedy, as a sentence.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}"


@contextmanager
def own_calls() -> Iterator[None]:
    """Reports an error that the user's own code raises in the block as one line, with the function and its place.

    Other errors pass unchanged, with their traceback.

    Raises:
        OwnCodeError: a function of a module that `imported` has imported raised an error.
    """
    try:
        yield
    except FedvtcError:
        raise
    except FAILURES as error:
        steps = _own_steps(error)
        if not steps:
            raise
        called = f"{steps[0].module}:{steps[0].code.co_qualname}"
        raise OwnCodeError(f"{called} raises {fault(error)}", "Correct the function.") from error


def fault(error: BaseException) -> str:
    """Formats kind and text of an error as one line, with file and line if the user's own code raised the error."""
    place = "".join(f", {os.path.basename(step.code.co_filename)}:{step.line}" for step in _own_steps(error)[-1:])
    return f"{reason(error)}{place}"


class _Step(NamedTuple):
    """A line of the user's own code on the way of an error."""

    module: str
    code: CodeType
    line: int


_own_packages: set[str] = set()
"""First names of the modules that `imported` has imported, or has tried to import."""


def _own_steps(error: BaseException) -> list[_Step]:
    """Returns the lines of the user's own code that an error passed, the line where the error arose last."""
    steps = [
        _Step(str(frame.f_globals.get("__name__")), frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return [step for step in steps if step.module.partition(".")[0] in _own_packages]


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


_job_folders: list[str] | None = None
"""Inside of `as_in_job`: the folders that are sent with the job."""


@contextmanager
def as_in_job(folders: Iterable[Path]) -> Iterator[None]:
    """Imports modules from the folders that are sent with a job, not from the working folder, inside the block.

    Installed modules and the folders of PYTHONPATH count as present on every node.
    """
    global _job_folders
    folders_before, path_before = _job_folders, list(sys.path)
    present = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # `python -m` puts the working folder first.
    sys.path[:] = [folder for folder in sys.path if folder not in {"", os.getcwd()} - set(present)]
    _job_folders = [os.path.abspath(folder) for folder in folders]
    try:
        yield
    finally:
        _job_folders, sys.path[:] = folders_before, path_before


def find_own_folders() -> None:
    """Adds the working folder, or the folders of a job, to the folders that Python imports from."""
    # Last, so that no file of a folder replaces an installed module.
    if _job_folders is not None:
        sys.path += [folder for folder in _job_folders if folder not in sys.path]
    elif not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def _remedy() -> str:
    """Returns the remedy for a module that is in no folder that Python imports from."""
    if _job_folders is None:
        return f"Install the module, put its folder on PYTHONPATH, or start fedvtc in its folder, not {os.getcwd()}."
    sent = f", not {' and '.join(_job_folders)}" if _job_folders else ""
    return f"Install the module, or give the folder that contains it as --working-dir{sent}."


def imported(name: str, kind: str) -> Any:
    """Imports an object; modules in the working folder are found too, after installed modules.

    Args:
        name: `package.module:Name`.
        kind: `class` or `function`, for the error.

    Raises:
        OwnCodeError: the module cannot be imported, or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    find_own_folders()
    _own_packages.add(module_name.partition(".")[0])
    try:
        module = importlib.import_module(module_name)
    except FAILURES as error:
        fix = "Correct the module, or install the modules that it imports."
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            fix = _remedy()
        raise OwnCodeError(f"{module_name} cannot be imported ({fault(error)})", fix) from None
    found = getattr(module, attribute, None)
    if found is None:
        raise OwnCodeError(f"{module_name} has no {attribute}", f"Name a {kind} of {module.__file__}.")
    return found
