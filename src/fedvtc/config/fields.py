"""The keys of a config with type, range, default, text and resume permission, read from the fields of the sections."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from fedvtc.config.hints import bounds, hints_of, metadata, short_words
from fedvtc.config.section import AddedLater, MayChange, key_of


@dataclass(frozen=True)
class FieldDoc:
    """Description of a config key, for help and reference."""

    key: str
    type: str
    default: str
    text: str
    range: str = ""
    """Range of a number, such as `above 0 and at most 1`; empty without a range."""
    effect: str | None = None
    """Effect of another value on resume; None if a resumed run must keep the value."""


@dataclass(frozen=True)
class Leaf:
    """One key: a field of a section that is not itself a section."""

    key: str
    owner: type
    name: str
    hint: Any
    """Type with its `Annotated` metadata."""
    default: Any

    @property
    def may_change(self) -> MayChange | None:
        """The marker that allows another value on resume."""
        return next((item for item in metadata(self.hint) if isinstance(item, MayChange)), None)

    @property
    def is_added_later(self) -> bool:
        """True if older run folders lack the key."""
        return any(isinstance(item, AddedLater) for item in metadata(self.hint))


def leaves(cls: type, prefix: str = "", made: Any = None) -> Iterator[Leaf]:
    """Yields every key of a section and of the sections in it, depth first, in the order of the fields.

    Args:
        cls: a section.
        prefix: first part of each key, such as `method`.
        made: an instance of the section that holds the defaults; None takes the defaults of the fields.
    """
    start = f"{prefix}." if prefix else ""
    hints = hints_of(cls)
    for field in fields(cls):
        name = key_of(field.name)
        hint, key = hints[name], start + name
        if made is not None:
            default = getattr(made, field.name)
        else:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
        if isinstance(hint, type) and is_dataclass(hint):
            yield from leaves(hint, key, default)
        else:
            yield Leaf(key, cls, field.name, hint, default)


def field_docs(cls: type, prefix: str = "") -> list[FieldDoc]:
    """Returns the description of every key of a section, in the order of `leaves`.

    Args:
        cls: a section with a docstring below each field.
        prefix: first part of each key, such as `method`.
    """
    docs = []
    for leaf in leaves(cls, prefix):
        text = _texts(leaf.owner).get(leaf.name, "")
        effect = leaf.may_change.effect if leaf.may_change else None
        docs.append(FieldDoc(leaf.key, short_words(leaf.hint), as_yaml(leaf.default), text, bounds(leaf.hint), effect))
    return docs


def grouped_docs(config: type, methods: Mapping[str, type]) -> dict[str, list[FieldDoc]]:
    """Returns the descriptions of all keys by group: `run`, ..., and `method.name=NAME` for each method with own keys.

    Args:
        config: the section of the whole config.
        methods: the section of each method, by the name of the method.
    """
    groups: dict[str, list[FieldDoc]] = {}
    for doc in field_docs(config):
        groups.setdefault(doc.key.partition(".")[0], []).append(doc)
    common = {doc.key for doc in groups["method"]}
    for name, cls in methods.items():
        own = [doc for doc in field_docs(cls, "method") if doc.key not in common]
        if own:
            groups[f"method.name={name}"] = own
    return groups


def as_yaml(value: Any) -> str:
    """Returns a default in the form that the command line accepts."""
    if value is MISSING:
        return "(required)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if is_dataclass(value) and not isinstance(value, type):
        inner = (f"{key_of(field.name)}: {as_yaml(getattr(value, field.name))}" for field in fields(value))
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    return str(value)


@cache
def _texts(cls: type) -> dict[str, str]:
    """Returns the docstring below each field on one line, also of fields of base classes."""
    texts: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not is_dataclass(owner):
            continue
        definition = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for statement, below in zip(definition.body, definition.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
    return texts
