"""The keys of a config with type, default and text, read from the dataclasses and the docstrings under their fields."""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedvtc.config.keys import key_of

_WORDS = {int: "int", float: "float", bool: "bool", str: "text", type(None): "null"}


@dataclass(frozen=True)
class FieldDoc:
    """One key."""

    key: str
    type: str
    default: str
    text: str


def field_docs(cls: type, prefix: str = "") -> list[FieldDoc]:
    """Every key of a dataclass and of the dataclasses in it, depth first, in the order of their fields.

    Args:
        cls: a dataclass whose fields have docstrings under them.
        prefix: what stands before each key, such as `method`.
    """
    return list(_walk(cls, f"{prefix}." if prefix else ""))


def _walk(cls: type, prefix: str, made: Any = None) -> Iterator[FieldDoc]:
    """The keys of a dataclass; `made` is its default where it stands, None for that of its own fields."""
    hints, texts = get_type_hints(cls), _texts(cls)
    for field in fields(cls):
        hint = hints[field.name]
        if made is not None:
            default = getattr(made, field.name)
        else:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _walk(hint, f"{prefix}{field.name}.", default)
            continue
        yield FieldDoc(prefix + key_of(field), _type_words(hint), _as_yaml(default), texts.get(field.name, ""))


def _texts(cls: type) -> dict[str, str]:
    """The docstring under each field, those of base classes too."""
    texts: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not is_dataclass(owner):
            continue
        definition = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for statement, below in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[statement.target.id] = " ".join(str(below.value.value).split())
    return texts


def _type_words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_type_words(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return f"list of {_type_words(get_args(hint)[0])}"
    if isinstance(hint, type) and is_dataclass(hint):
        return "{" + ", ".join(field.name for field in fields(hint)) + "}"
    return _WORDS.get(hint, str(hint))


def _as_yaml(value: Any) -> str:
    """A default as it would stand on the command line."""
    if value is MISSING:
        return "(needed)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if is_dataclass(value) and not isinstance(value, type):
        inner = (f"{field.name}: {_as_yaml(getattr(value, field.name))}" for field in fields(value))
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
    return str(value)
