"""Imports a method of the user's own, and checks that the class is a whole method with a section of keys."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from fedvtc.config.hints import hints_of, options
from fedvtc.config.own_code import OwnCodeError, own_class
from fedvtc.config.schema import MethodConfig
from fedvtc.learning.methods.base import Method


def own_method(path: str, name: str) -> type[Method[Any]]:
    """Imports the class of a method.

    Args:
        path: the class, `package.module:Name`.
        name: name of the method in the config, for errors.

    Raises:
        OwnCodeError: the class cannot be imported, or is no whole method, or its section has wrong keys.
    """
    method: type[Method[Any]] = own_class(path, Method, "fedvtc.learning.methods.Method")
    for what, fix in _faults(method, name):
        raise OwnCodeError(what, fix)
    return method


def _faults(method: type[Method[Any]], name: str) -> Iterator[tuple[str, str]]:
    section: Any = method.config_class
    if not (isinstance(section, type) and issubclass(section, MethodConfig)):
        yield f"{name} has no section of keys as config_class", "Derive the section from MethodConfig."
    title, keys = section.__name__, {field.name for field in fields(section)}
    if lost := [key for key in vars(section).get("__annotations__", {}) if key not in keys]:
        what = f"{title} has the fields {', '.join(lost)}, which are no config keys"
        yield what, f"Write @section above the class {title}."
    own, common = hints_of(section), hints_of(MethodConfig)
    if taken := [key for key in common if not set(options(own[key])) <= set(options(common[key]))]:
        what = f"{title} has the key {', '.join(taken)}, which every method has with another type"
        yield what, "Choose another name for the key."
    functions = ("problems", "of_rounds")
    if taken := [name for name in functions if not callable(getattr(section, name))]:
        what = f"{title} has the key {', '.join(taken)}, the name of a function of MethodConfig"
        yield what, "Choose another name for the key."
    if method.closing_upload is not Method.closing_upload and method.closing_server is Method.closing_server:
        what = f"{name} defines closing_upload, but no closing_server that merges the uploads"
        yield what, "Define closing_server as fedvtc.learning.methods.Method describes."
