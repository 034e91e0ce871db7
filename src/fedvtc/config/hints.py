"""The type of a config key: its options, its range, and both in words."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from fedvtc.config.section import key_of
from fedvtc.config.yaml_text import KeyPath

_READABLE = (int, float, bool, str, type(None), list, dict, Any)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_SHORT = {int: "int", float: "float", bool: "bool", str: "text", type(None): "null"}
_LONG = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def hint_at(cls: type, path: KeyPath) -> Any:
    """Returns the type of the key at a path below a section, with its metadata; None if there is no such key."""
    hint: Any = cls
    for step in path:
        section = section_in(hint)
        if section is not None:
            hint = hints_of(section).get(str(step))
        else:
            hint = element_of(hint) if isinstance(step, int) else None
        if hint is None:
            break
    return hint


@cache
def hints_of(section: type) -> Mapping[str, Any]:
    """Returns the type of each key of a section, with its metadata."""
    hints = get_type_hints(section, include_extras=True)
    return {key_of(field.name): hints[field.name] for field in fields(section)}


def options(hint: Any) -> tuple[Any, ...]:
    """Returns the types that a union allows, without metadata; for another type the type alone."""
    if get_origin(hint) is Annotated:
        return options(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(option for inner in get_args(hint) for option in options(inner))
    return (hint,)


def metadata(hint: Any) -> Iterator[Any]:
    """Yields the `Annotated` metadata of a type and of the options of a union."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        for extra in extras:
            yield from extra.metadata if isinstance(extra, FieldInfo) else [extra]
        yield from metadata(inner)
    elif get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from metadata(option)


def section_in(hint: Any) -> type | None:
    """Returns the section that a type allows, if any."""
    return next((option for option in options(hint) if isinstance(option, type) and is_dataclass(option)), None)


def element_of(hint: Any) -> Any:
    """Returns the type of a list's elements; None if the type allows no list."""
    return next((get_args(option)[0] for option in options(hint) if get_origin(option) is list), None)


def unreadable(section: type) -> Iterator[tuple[str, str]]:
    """Yields key and type of each key below a section with a type that a config file cannot hold, such as a tuple."""
    for key, hint in hints_of(section).items():
        inner = section_in(hint)
        if inner is not None:
            yield from ((f"{key}.{below}", name) for below, name in unreadable(inner))
        for option in _leaves(hint):
            if not (get_origin(option) is Literal or option in _READABLE or is_dataclass(option)):
                yield key, getattr(option, "__name__", str(option)) if get_origin(option) is None else str(option)


def _leaves(hint: Any) -> Iterator[Any]:
    """Yields the options of a type, and the options of the elements in place of a list or mapping."""
    for option in options(hint):
        if get_origin(option) in (list, dict):
            for inner in get_args(option):
                yield from _leaves(inner)
        else:
            yield option


def choices(hint: Any) -> list[str]:
    """Returns the fixed words that a type allows."""
    return [str(choice) for option in options(hint) if get_origin(option) is Literal for choice in get_args(option)]


def bounds(hint: Any) -> str:
    """Returns the range of a number, such as `above 0 and at most 1`; empty without a range."""
    found = (
        f"{words} {getattr(item, name):g}"
        for item in metadata(hint)
        for name, words in _BOUNDS.items()
        if hasattr(item, name)
    )
    return " and ".join(found)


def short_words(hint: Any) -> str:
    """Returns a type for help and reference, such as `int | null`."""
    words = []
    for option in options(hint):
        if get_origin(option) is Literal:
            words += choices(option)
        elif section_in(option):
            words.append(f"{{{', '.join(_keys(option))}}}")
        elif element_of(option) is not None:
            words.append(f"list of {short_words(element_of(option))}")
        else:
            words.append(_SHORT.get(option, str(option)))
    return " | ".join(words)


def long_words(hint: Any) -> str:
    """Returns a type and its range for a message, such as `a whole number of at least 1 or null`."""
    words = []
    for option in options(hint):
        if get_origin(option) is Literal:
            several = len(choices(option)) > 1
            words.append(f"one of {', '.join(choices(option))}" if several else choices(option)[0])
        elif section_in(option):
            words.append(f"a mapping with keys {', '.join(_keys(option))}")
        elif (get_origin(option) or option) in (list, dict):
            words.append("a list" if list in (get_origin(option), option) else "a mapping")
        elif option in (int, float) and bounds(hint):
            of = "of " if bounds(hint).startswith("at ") else ""
            words.append(f"{_LONG[option]} {of}{bounds(hint)}")
        elif option is str and any(getattr(item, "min_length", 0) for item in metadata(hint)):
            words.append("text that is not empty")
        else:
            words.append(_LONG.get(option, str(option)))
    return " or ".join(words)


def _keys(section: type) -> list[str]:
    return [key_of(field.name) for field in fields(section)]
