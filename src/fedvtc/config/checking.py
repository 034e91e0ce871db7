"""Checks of plain values against the sections of the config; each wrong value becomes a `Problem`."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from types import NoneType
from typing import Any, Literal, TypeVar, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from fedvtc.config.hints import choices, element_of, hint_at, hints_of, long_words, options, section_in
from fedvtc.config.layers import Layer, dotted
from fedvtc.config.problems import Problem, did_you_mean, nearest, show
from fedvtc.config.section import key_of
from fedvtc.config.shipped import is_shipped
from fedvtc.config.yaml_text import KeyPath

SectionT = TypeVar("SectionT")

UNKNOWN = "unknown key"
"""The `what` of a problem with a key that no section has."""
_NAMES = ("name", "kind")
"""The first key of a section whose other keys belong to one choice."""
_TAKEN_BY: dict[type, set[type]] = {bool: {bool}, int: {bool, int, float}, float: {int, float}}
"""For the type of a value that YAML read: the types of keys that accept the value."""


def as_written(layer: Layer, cls: type, prefix: KeyPath = ()) -> Layer:
    """Returns the layer with the user's text instead of each number or truth value that the key does not accept.

    YAML reads `2026_11_23` as a number and `yes` as true; the key `run.name` accepts both as texts.

    Args:
        layer: keys of one file or override.
        cls: a section.
        prefix: the path of the section in the layer.
    """
    content = copy.deepcopy(layer.content)
    for path, word in layer.written.items():
        inside = path[len(prefix) :]
        if path[: len(prefix)] != prefix or not inside:
            continue
        kinds = {option for option in options(hint_at(cls, inside)) if get_origin(option) is not Literal}
        if not kinds <= {bool, int, float, str, NoneType}:
            continue
        node: Any = content
        for step in path[:-1]:
            node = node[step]
        value = node[path[-1]]
        if type(value) in _TAKEN_BY and not _TAKEN_BY[type(value)] & kinds:
            node[path[-1]] = word
    return replace(layer, content=content)


def non_sections(layer: Layer, cls: type, prefix: KeyPath = ()) -> Iterator[Problem]:
    """Yields a problem for each value of a layer that stands in place of a section, such as `run:` without keys.

    The value drops the keys that earlier layers set in the section. After a later layer with keys of the section, the
    merged config no longer shows the value.

    Args:
        layer: keys of one file or override.
        cls: a section.
        prefix: the path of the section in the layer.
    """
    node: Any = layer.content
    for step in prefix:
        node = node.get(step) if isinstance(node, dict) else None
    for name, value in node.items() if isinstance(node, dict) else ():
        hint, path = hint_at(cls, (str(name),)), (*prefix, str(name))
        section = section_in(hint)
        # The text may stand for another section, as in `${method.generator}`.
        if section is None or NoneType in options(hint) or (isinstance(value, str) and "${" in value):
            continue
        if isinstance(value, dict):
            yield from non_sections(layer, section, path)
        else:
            key = dotted(path)
            what = f"must be {long_words(hint)}, not {show(value)}"
            yield Problem(key, what, layer.where(path), _form(hint, path, key, value))


def checked(cls: type[SectionT], values: object, prefix: KeyPath = ()) -> tuple[SectionT, list[Problem]]:
    """Builds a section from plain values; returns the section, and a problem for each key with a wrong value.

    A key with a problem has its default in the section, so that the other keys can be checked further.

    Args:
        cls: the section.
        values: nested dicts and lists of plain values.
        prefix: the path of the section in the config.
    """
    adapter = TypeAdapter(cls)
    try:
        return adapter.validate_python(values, by_alias=True, by_name=False), []
    except ValidationError as error:
        found: dict[KeyPath, Problem] = {}
        for detail in error.errors(include_url=False):
            path, problem = _problem(cls, detail, prefix)
            found.setdefault(path, problem)
    # A list with a wrong entry takes its default as a whole.
    bad = {path[: next((n for n, step in enumerate(path) if isinstance(step, int)), None)] for path in found}
    rest = adapter.validate_python({} if () in bad else pruned(values, bad), by_alias=True, by_name=False)
    # Misspelt keys come first, because they may cause the other problems.
    return rest, sorted(found.values(), key=lambda problem: problem.what != UNKNOWN)


def refusal(error: ValidationError) -> str:
    """Returns the first text of an error of pydantic, without pydantic's name for errors of a check."""
    return _text(error.errors(include_url=False)[0]["msg"])


def _text(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")


def pruned(values: Any, paths: set[KeyPath], path: KeyPath = ()) -> Any:
    """Returns nested values without the keys at the given paths."""
    if isinstance(values, Mapping):
        return {key: pruned(value, paths, (*path, key)) for key, value in values.items() if (*path, key) not in paths}
    return values


def _problem(cls: type, detail: ErrorDetails, prefix: KeyPath) -> tuple[KeyPath, Problem]:
    """Returns the path of the key that pydantic complains about, and the problem in words."""
    path: KeyPath = ()
    loc, kind, value = detail["loc"], detail["type"], detail["input"]
    hint: Any = cls
    for step in loc:
        section = section_in(hint)
        if section is None and element_of(hint) is None:
            # The rest of pydantic's path names the options of a union.
            break
        above, path = (*prefix, *path), (*path, str(step) if section else step)
        hint = hint_at(cls, path)
        if section is not None and hint is None:
            names = [key_of(field.name) for field in fields(section)]
            prefix_text = f"{dotted(above)}." if above else ""
            below = [f"{prefix_text}{key}" for key in _keys_named(section, str(step))]
            fix = f"Did you mean {' or '.join(below)}?" if below else did_you_mean(str(step), names, prefix=prefix_text)
            if "." in str(step):
                first, _, rest = str(step).partition(".")
                fix = f"Write the key below its section, {first}: {{{rest}: VALUE}}."
            return path, Problem(dotted((*prefix, *path)), UNKNOWN, fix=fix)
    key = dotted((*prefix, *path))
    words = long_words(hint)
    if kind in ("value_error", "assertion_error"):
        # A check of the section itself, such as a validator of a method of the user's own.
        return path, Problem(key, _text(detail["msg"]))
    if kind == "missing":
        return path, Problem(key, f"is required and must be {words}")
    if isinstance(value, float) and not math.isfinite(value):
        words = words.replace("a number", "a finite number")
    near = nearest(value, choices(hint)) if isinstance(value, str) else None
    fix = f"Did you mean {near}?" if near else _form(hint, path, key, value)
    return path, Problem(key, f"must be {words}, not {show(value)}", fix=fix)


def _form(hint: Any, path: KeyPath, key: str, value: Any) -> str:
    """Returns a remedy for one word or nothing in place of a section or a list; an empty text for other values."""
    section, element = section_in(hint), element_of(hint)
    if value is None and section is not None:
        return "Leave the key out for its defaults."
    if not isinstance(value, str) or not value:
        return ""
    if section is None:
        inside = section_in(element)
        return f"Write [{_entry(inside, value) if inside else value}]." if element is not None else ""
    if path and isinstance(path[-1], int):
        return f"Write {_entry(section, value)}."
    # Hydra selects a config of a group by such a word.
    if is_shipped(f"{key}/{value}"):
        return f"Write the name of the config, {key}/{value}."
    first = key_of(fields(section)[0].name)
    return f"Set {key}.{first}={value}." if first in _NAMES else ""


def _entry(section: type, value: str) -> str:
    """Returns an entry of a list of sections with a name, such as `{name: cnn_2x16, share: SHARE}`."""
    keys = [key_of(field.name) for field in fields(section)]
    return f"{{{', '.join(f'{key}: {value if key in _NAMES else key.upper()}' for key in keys)}}}"


def _keys_named(section: type, name: str) -> Iterator[str]:
    """Yields the dotted keys below a section whose last part is a name."""
    for key, hint in hints_of(section).items():
        if key == name:
            yield key
        inner = section_in(hint)
        if inner is not None:
            yield from (f"{key}.{found}" for found in _keys_named(inner, name))
