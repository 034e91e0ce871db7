"""Checks a method of the user's own: its class and its section of keys, and the results of its functions."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

import numpy as np

from fedvtc.config.hints import hints_of, options, unreadable
from fedvtc.config.own_code import OwnCodeError, own_class
from fedvtc.config.schema import MethodConfig
from fedvtc.learning.exchange.messages import NUMBER_KINDS, Broadcast, in_c_order
from fedvtc.learning.methods.base import Method, ServerState

ResultT = TypeVar("ResultT")


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


def as_step(found: object, method: Method[Any], function: str) -> tuple[ServerState, Broadcast]:
    """Returns the result of `start` or `server_round`.

    Raises:
        OwnCodeError: the result is not a state and a broadcast, or no checkpoint can hold the state.
    """
    if isinstance(found, tuple) and len(found) == 2:
        state, broadcast = found
        if isinstance(state, Mapping) and isinstance(broadcast, Broadcast):
            for place, value in _unsavable(state):
                kind = f"array of {value.dtype.name}" if isinstance(value, np.ndarray) else type(value).__name__
                what = f"{_called(method, function)} returns state{place} of the type {kind}"
                fix = "Keep arrays, tensors, numbers and text, in mappings, lists or tuples."
                raise OwnCodeError(f"{what}, which no checkpoint can hold", fix)
            return in_c_order(state), broadcast
    raise _wrong(found, method, function, "a state and a Broadcast", "return state, Broadcast(...)")


def as_result(found: ResultT, kind: type, method: Method[Any], function: str) -> ResultT:
    """Returns the result of a function of a method.

    Raises:
        OwnCodeError: the result is of another kind.
    """
    if isinstance(found, kind):
        return found
    example = "return {...}" if kind is Mapping else f"return {kind.__name__}(...)"
    raise _wrong(found, method, function, f"of the type {kind.__name__}", example)


def _wrong(found: object, method: Method[Any], function: str, kind: str, example: str) -> OwnCodeError:
    got = "None" if found is None else f"an instance of {type(found).__name__}"
    return OwnCodeError(f"{_called(method, function)} returns {got}, not {kind}", f"End the function with `{example}`.")


def _called(method: Method[Any], function: str) -> str:
    return f"{type(method).__module__}:{type(method).__qualname__}.{function}"


def _unsavable(tree: object) -> Iterator[tuple[str, object]]:
    """Yields the place and the value of each part of a state that `storage.checkpoints.trees` does not write."""
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(tree, Mapping):
        parts = tree.items()
    elif type(tree) in (list, tuple):
        parts = enumerate(cast(Sequence[object], tree))
    elif isinstance(tree, np.ndarray | np.generic):
        if tree.dtype.kind not in NUMBER_KINDS:
            yield "", tree
    elif type(tree) not in (str, int, float, bool, type(None)) and not _is_tensor(tree):
        yield "", tree
    for key, part in parts:
        for place, value in _unsavable(part):
            yield f"[{key!r}]{place}", value


def _is_tensor(value: object) -> bool:
    # Without PyTorch in memory, no value can be a tensor; a plan does not import PyTorch.
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _faults(method: type[Method[Any]], name: str) -> Iterator[tuple[str, str]]:
    section: Any = method.config_class
    if not (isinstance(section, type) and issubclass(section, MethodConfig)):
        yield f"{name} has no section of keys as config_class", "Derive the section from MethodConfig."
    title, keys = section.__name__, {field.name for field in fields(section)}
    if lost := [key for key in vars(section).get("__annotations__", {}) if key not in keys]:
        what = f"{title} has the fields {', '.join(lost)}, which are no config keys"
        yield what, f"Write @section above the class {title}."
    if odd := [f"{key} of the type {kind}" for key, kind in unreadable(section)]:
        what = f"{title} has the key {', '.join(odd)}, which a config file cannot hold"
        yield what, "Use bool, int, float, str, None, Literal, lists or mappings of these, or a section."
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
