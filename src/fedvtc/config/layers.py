"""Reads config files with their includes, and `key=value` overrides, and keeps the file and line of every key."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from fedvtc.config.problems import COMMAND_LINE, Problem, encoding_problem, nearest
from fedvtc.config.shipped import located, nearest_shipped
from fedvtc.config.yaml_text import KeyPath, parse
from fedvtc.errors import first_line

_WORDS = "Write key=value, without spaces around `=`, or the path of a file that ends in .yaml."
"""The words of a command line, as a remedy."""
_COMMENT = re.compile(r"(?:^|\s)#")
_UNREADABLE = (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError)
"""Errors of `parse`."""


@dataclass(frozen=True)
class Layer:
    """The keys of one file or of one override.

    Attributes:
        source: the file, or `command line`.
        content: nested dicts, lists and values; `${...}` is not resolved.
        lines: the line of each key in the file.
        written: the text of each plain value before YAML reads the text as a number, such as 2026_11_23.
    """

    source: str
    content: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Returns `FILE:LINE` of a key, or of the nearest key above the key; `command line` for an override."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source

    def sets(self, path: KeyPath) -> bool:
        """Returns True if the layer sets the value at a path; a list sets all values in the list."""
        node: Any = self.content
        for step in path:
            if not isinstance(node, dict):
                return isinstance(node, list)
            if step not in node:
                return False
            node = node[step]
        return True


def dotted(path: KeyPath) -> str:
    """Returns a path as the user writes the key: `population.backbones[0].share`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def placed(problem: Problem, layers: Sequence[Layer]) -> Problem:
    """Returns the problem with `where` filled in: the file and line that set the key, or `command line`."""
    for layer in reversed(layers):
        path = _path_in(layer.content, problem.key)
        if path is not None:
            return replace(problem, where=layer.where(path))
    return problem


def _path_in(node: Any, key: str) -> KeyPath | None:
    """Returns the path of a key as `dotted` writes the path; None if a layer's content lacks the key.

    A name in the content may contain dots itself. A list sets all values in the list.
    """
    if not isinstance(node, dict):
        steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", key)
        within = tuple(int(index) if index else name for index, name in steps)
        return within if isinstance(node, list) or not within else None
    for name, inner in node.items():
        if key == name or key.startswith((f"{name}.", f"{name}[")):
            below = _path_in(inner, key.removeprefix(name).removeprefix("."))
            if below is not None:
                return (name, *below)
    return None if key else ()


def read_files(files: Sequence[Path | str], problems: list[Problem]) -> list[Layer]:
    """Returns the layers of files and of the files that they include, in merge order; see `shipped.located`."""
    return [layer for file in files for layer in _read_tree(located(file), (), COMMAND_LINE, problems)]


def read_overrides(overrides: Sequence[str], problems: list[Problem]) -> list[Layer]:
    """Returns one layer for each `key=value`; the value is YAML."""
    layers = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            near = None if equals else nearest_shipped(override)
            fix = f"Did you mean {near}?" if near else _WORDS
            problems.append(Problem(override or "''", "is neither key=value nor a file", COMMAND_LINE, fix))
            continue
        path = (*key.strip().split("."),)
        if "[" in key:
            fix = f"Set the whole list, {key.partition('[')[0]}=[...]."
            problems.append(Problem(key, "an entry of a list cannot be set alone", COMMAND_LINE, fix))
            continue
        if unusual := encoding_problem(key, value, COMMAND_LINE):
            problems.append(unusual)
            continue
        try:
            parsed = parse(value)
        except _UNREADABLE as error:
            what = f"value is not valid YAML: {_reason(error)}"
            problems.append(Problem(key, what, COMMAND_LINE, "Quote the value for the shell: 'key=value'."))
            continue
        content = parsed.content
        if _COMMENT.search(value) and "#" not in str(content):
            what = "YAML reads the value from # on as a comment"
            problems.append(Problem(key, what, COMMAND_LINE, f"Quote the value: {key}='\"...\"'."))
            continue
        for step in reversed(path):
            content = {step: content}
        written = {(*path, *inside): word for inside, word in parsed.written.items()}
        layers.append(Layer(COMMAND_LINE, content, written=written))
    return layers


def _read_tree(file: Path, above: tuple[Path, ...], asked_at: str, problems: list[Problem]) -> list[Layer]:
    """Returns the layers of the files that one file includes, then the layer of the file."""
    chain = (*above, file)
    # `Path.resolve` raises for a link to itself.
    if os.path.realpath(file) in map(os.path.realpath, above):
        circle = " -> ".join(str(link) for link in chain)
        problems.append(Problem(str(file), f"includes itself: {circle}", asked_at, "Remove one of the includes."))
        return []
    layer = read_file(file, asked_at, problems)
    if layer is None:
        return []
    include = layer.content.pop("include", [])
    include_at = layer.where(("include",))
    if not isinstance(include, list) or not all(isinstance(entry, str) for entry in include):
        fix = "Write include: [data/mnist]."
        what = "must be a list of files or of shipped configs"
        problems.append(Problem("include", what, include_at, fix))
        include = []
    layers = []
    for index, entry in enumerate(include):
        layers += _read_tree(located(entry, file.parent), chain, layer.where(("include", index)), problems)
    return [*layers, layer]


def read_file(file: Path, asked_at: str, problems: list[Problem]) -> Layer | None:
    """Returns the layer of one file without its includes, or None with a new problem if the file cannot be read.

    Args:
        file: the YAML file.
        asked_at: the file and line that names the file, or `command line`.
        problems: the list that a new problem is added to.
    """
    # `Path.is_file` raises for a name that is too long.
    if not os.path.isfile(file):
        what = "is a folder, not a file" if os.path.isdir(file) else "no such file"
        problems.append(Problem(str(file), what, asked_at, _near_files(file)))
        return None
    try:
        text = file.read_text(encoding="utf-8")
        parsed = parse(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problems.append(Problem(f"{file}{line}", f"not valid YAML: {error.problem}"))
        return None
    except (OSError, *_UNREADABLE) as error:
        fix = "Save the file as UTF-8." if isinstance(error, UnicodeDecodeError) else ""
        problems.append(Problem(str(file), f"cannot be read: {_reason(error)}", fix=fix))
        return None
    # A file with comments only is a valid, empty layer.
    if not isinstance(parsed.root, yaml.MappingNode | None):
        problems.append(Problem(str(file), "must be a mapping", fix="Write lines such as `run: {rounds: 10}`."))
        return None
    return Layer(str(file), parsed.content or {}, parsed.lines, parsed.written)


def _near_files(file: Path) -> str:
    """Returns a hint for a path that is not a file: a near name, or the entries of the last folder that exists."""
    shipped = nearest_shipped(str(file))
    folder, missing = (file, "") if os.path.isdir(file) else (file.parent, file.name)
    if shipped and not os.path.isdir(folder):
        return f"Did you mean {shipped}?"
    while not os.path.isdir(folder):
        folder, missing = folder.parent, folder.name
    try:
        entries = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return ""
    near = nearest(missing, entries)
    if near:
        return f"Did you mean {folder / near}?"
    if shipped:
        return f"Did you mean {shipped}?"
    shown = ", ".join(entries[:12]) + (", ..." if len(entries) > 12 else "")
    return f"{folder} contains: {shown}." if entries else f"{folder} is empty."


def _reason(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return error.problem
    return first_line(error).rstrip(".")
