"""Whether the keys and types of a layer are those of the dataclasses."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedvtc.config.layers import KeyPath, Layer, dotted
from fedvtc.config.problems import Problem, did_you_mean, nearest, show

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def key_of(field: "Field[Any]") -> str:
    """The key of a field: its name, without the underscore that keeps it from being a word of Python."""
    return field.name.removesuffix("_")


def valid_part(
    layer: Layer, content: Mapping[str, Any], schema: type, sections: Mapping[str, type], problems: list[Problem]
) -> dict[str, Any]:
    """The keys of a layer that fit the schema; every other one is added to `problems`.

    Args:
        layer: where the keys come from.
        content: the keys to look at, plain dicts, lists and values.
        schema: the dataclass of the whole config.
        sections: sections whose class is not the one that `schema` declares.
        problems: grows by one per key that does not fit.
    """
    return _Walk(layer, problems).mapping(content, schema, (), sections)


class _Walk:
    def __init__(self, layer: Layer, problems: list[Problem]) -> None:
        self.layer, self.problems = layer, problems

    def mapping(
        self, content: Mapping[str, Any], schema: type, path: KeyPath, sections: Mapping[str, type] | None = None
    ) -> dict[str, Any]:
        hints = get_type_hints(schema) | dict(sections or {})
        names = {key_of(field): field.name for field in fields(schema)}
        kept = {}
        for key, value in content.items():
            inner = (*path, str(key))
            if key not in names:
                fix = did_you_mean(str(key), names, prefix="".join(f"{dotted(path)}." for _ in path[:1]))
                self.refuse(inner, "unknown key", fix)
            elif (result := self.value(value, schema, names[key], hints[names[key]], inner)) is not MISSING:
                kept[names[key]] = result
        return kept

    def value(self, value: Any, schema: type, name: str, hint: Any, path: KeyPath) -> Any:
        """The value, cleaned of what does not fit; MISSING when nothing is left."""
        if isinstance(value, str) and "${" in value:
            return value  # Judged when it is resolved.
        if set(_options(hint)) <= {str, type(None)}:
            value = self.as_written(value, path)
        elif hint == list[str] and isinstance(value, list):
            value = [self.as_written(entry, (*path, index)) for index, entry in enumerate(value)]
        if value == "???":
            # OmegaConf's word for a value to come, which its merge would leave out in silence.
            self.refuse(path, f"expected {_expected(hint)}, not '???'", "")
            return MISSING
        section = _dataclass_in(hint)
        if section is not None and isinstance(value, Mapping):
            return self.mapping(value, section, path)
        element = _element_class(hint)
        if element is not None and isinstance(value, list):
            return self.elements(value, element, path)
        if section is None and not (element is not None) and _fits(schema, name, value):
            return value
        if value is None and type(None) in get_args(hint):
            return value
        choices = _choices(hint)
        near = nearest(value, choices) if isinstance(value, str) else None
        self.refuse(path, f"expected {_expected(hint)}, not {show(value)}", f"Did you mean {near}?" if near else "")
        return MISSING

    def as_written(self, value: Any, path: KeyPath) -> Any:
        """A number where text is expected, as the user wrote it."""
        return self.layer.written.get(path, value) if isinstance(value, int | float) else value

    def elements(self, values: list[Any], element: type, path: KeyPath) -> Any:
        num_before = len(self.problems)
        kept = []
        for index, value in enumerate(values):
            inner = (*path, index)
            if not isinstance(value, Mapping):
                self.refuse(inner, f"expected {_expected(element)}, not {show(value)}", "")
                continue
            kept.append(self.mapping(value, element, inner))
            for field in fields(element):
                if field.default is MISSING and field.default_factory is MISSING and field.name not in value:
                    self.refuse(
                        (*inner, field.name), f"missing, expected {_expected(get_type_hints(element)[field.name])}", ""
                    )
        # Half a list would draw complaints about its rest.
        return kept if len(self.problems) == num_before else MISSING

    def refuse(self, path: KeyPath, what: str, fix: str) -> None:
        self.problems.append(Problem(dotted(path), what, self.layer.where(path), fix))


def _fits(schema: type, name: str, value: Any) -> bool:
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {name: value})
    except (OmegaConfBaseException, ValueError, TypeError):
        return False
    return True


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _dataclass_in(hint: Any) -> type | None:
    return next((option for option in _options(hint) if isinstance(option, type) and is_dataclass(option)), None)


def _element_class(hint: Any) -> type | None:
    for option in _options(hint):
        if get_origin(option) in (list, tuple):
            return _dataclass_in(get_args(option)[0])
    return None


def _choices(hint: Any) -> list[str]:
    return [str(choice) for option in _options(hint) if get_origin(option) is Literal for choice in get_args(option)]


def _expected(hint: Any) -> str:
    words = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            words.append("one of " + ", ".join(_choices(option)))
        elif get_origin(option) in (list, tuple):
            words.append("a list")
        elif get_origin(option) is dict:
            words.append("keys with values")
        elif _dataclass_in(option):
            words.append("keys (" + ", ".join(field.name for field in fields(option)) + ")")
        else:
            words.append(_WORDS.get(option, str(option)))
    return " or ".join(words)
