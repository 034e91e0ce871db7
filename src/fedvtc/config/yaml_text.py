"""Reads YAML text of files, overrides and sweep files; all scalars follow the core schema of YAML 1.2.

PyYAML and OmegaConf follow YAML 1.1, where 010 is 8, 008 is text and 1:30 is 90. In YAML 1.2 these are 10, 8 and text.
Underscores between digits, as in 1_000, stay valid.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import OmegaConf

KeyPath = tuple[str | int, ...]
"""A key as steps: `("population", "backbones", 0, "share")`."""

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_TAGS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
"""Pattern of the texts of each type; the first type that matches is the type of a text."""


class _CoreLoader(yaml.SafeLoader):
    """Resolves the types of scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # the name in PyYAML


for _type, _pattern in _TAGS.items():
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(rf"^(?:{_pattern})$"), None)


@dataclass(frozen=True)
class Parsed:
    """The content of a YAML text.

    Attributes:
        root: the node of the whole text; None for a text without content.
        content: nested dicts with text keys, lists and values; `${...}` is not resolved.
        lines: the line of each key and list entry.
        written: the text of each plain value before YAML reads the text as a number, such as 2026_11_23.
    """

    root: yaml.Node | None
    content: Any
    lines: dict[KeyPath, int]
    written: dict[KeyPath, str]


def parse(text: str) -> Parsed:
    """Parses YAML; refuses a key that occurs twice and aliases that expand without end.

    Raises:
        YAMLError: the text is not valid YAML.
        OmegaConfBaseException: a `${...}` is malformed.
        ValueError: a value does not fit its tag.
        TypeError: a key is not plain text or a number.
    """
    parsed = _parsed(text)
    # A copy, because the caller may change the content.
    return replace(parsed, content=deepcopy(parsed.content))


# The trials of a sweep read the same files.
@lru_cache(maxsize=256)
def _parsed(text: str) -> Parsed:
    root = yaml.compose(text, Loader=_CoreLoader)
    # OmegaConf's reader finds double keys and aliases without end.
    held = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    assert isinstance(held, dict)
    held["value"] = _with_text_keys(held["value"])
    nodes = list(_nodes(root))
    for path, _, node in [((), 0, root), *nodes]:
        _set_core_value(held, ("value", *path), node)
    lines = {path: line for path, line, _ in nodes}
    scalars = {path: node.value for path, _, node in [((), 0, root), *nodes] if isinstance(node, yaml.ScalarNode)}
    return Parsed(root, held["value"], lines, scalars)


def _with_text_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _with_text_keys(value) for key, value in node.items()}
    return node


def _nodes(node: yaml.Node | None, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int, yaml.Node]]:
    """Yields path, line and node of every value below a node; the line is the line of the key or of the list entry."""
    entries: list[tuple[str | int, yaml.Node, yaml.Node]]
    if isinstance(node, yaml.MappingNode):
        entries = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        entries = [(index, value, value) for index, value in enumerate(node.value)]
    else:
        return
    for step, at, value in entries:
        yield (*path, step), at.start_mark.line + 1, value
        yield from _nodes(value, (*path, step))


def _set_core_value(content: Any, path: KeyPath, node: yaml.Node | None) -> None:
    """Puts the YAML 1.2 reading of a number or text in the place of OmegaConf's reading."""
    if not isinstance(node, yaml.ScalarNode):
        return
    *above, last = path
    # The keys of a merge (`<<`) and numbers as keys are at other paths in the content.
    with suppress(KeyError):
        for step in above:
            content = content[step]
        content[last] = _core_value(node, content[last])


def _core_value(node: yaml.ScalarNode, read: Any) -> Any:
    word = node.value
    match node.tag.rpartition(":")[2]:
        case "int":
            base = {"0o": 8, "0x": 16}.get(word[:2], 10)
            return int(word, base)
        case "float" if not word.lower().endswith(("inf", "nan")):
            return float(word)
        case "str":
            return word
        case _:
            return read
