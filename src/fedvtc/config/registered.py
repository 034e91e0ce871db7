"""Short names that installed packages give to their methods, backbones and data loaders, by entry points.

The group of the entry points is `fedvtc.methods`, `fedvtc.backbones` or `fedvtc.data`. Nothing is imported here.
"""

from collections.abc import Collection
from functools import cache
from importlib.metadata import entry_points
from typing import Literal, NamedTuple

from fedvtc.config.own_code import OwnCodeError, is_import_path
from fedvtc.config.problems import did_you_mean

Kind = Literal["methods", "backbones", "data"]
NOUNS: dict[Kind, str] = {"methods": "method", "backbones": "backbone", "data": "data set"}


class Registered(NamedTuple):
    """A short name: the import path that the name stands for, and the package that registers the name."""

    path: str
    package: str


def registered(kind: Kind) -> dict[str, tuple[Registered, ...]]:
    """Returns the short names of a kind, sorted; a name of several packages has several entries."""
    found: dict[str, set[Registered]] = {}
    for name, path, package in _entries(kind):
        found.setdefault(name, set()).add(Registered(path, package))
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def import_path(kind: Kind, name: str, builtin: Collection[str]) -> str | None:
    """Returns the import path that a name stands for; None for a built-in name and for an unknown name.

    Raises:
        OwnCodeError: a package registers a built-in name, two packages register the name, or no import path belongs to
            the name.
    """
    if is_import_path(name):
        return name
    entries = registered(kind).get(name, ())
    if not entries:
        return None
    paths = " or ".join(entry.path for entry in entries)
    packages = " and ".join(entry.package for entry in entries)
    if name in builtin:
        what = f"{name} is a built-in {NOUNS[kind]}, and {packages} registers the same name"
        raise OwnCodeError(what, f"Set {paths}, or uninstall the package to use the built-in {NOUNS[kind]}.")
    if len(entries) > 1:
        raise OwnCodeError(f"{packages} both register {name}", f"Set {paths}, or uninstall one package.")
    if not is_import_path(paths):
        fix = "Correct the entry point of the package."
        raise OwnCodeError(f"{packages} registers {name} as {paths!r}, which is not package.module:Name", fix)
    return paths


def similar_name(kind: Kind, name: str, builtin: Collection[str]) -> str:
    """Returns the remedy for an unknown name: `module:Name` for `module.Name`, else the most similar name."""
    module, _, attribute = name.rpartition(".")
    path = f"{module}:{attribute}"
    return did_you_mean(name, [path] if is_import_path(path) else dict.fromkeys([*builtin, *registered(kind)]))


@cache
def _entries(kind: Kind) -> tuple[tuple[str, str, str], ...]:
    """Returns name, import path and package of every entry point of a kind; the search takes a tenth of a second."""
    found = entry_points(group=f"fedvtc.{kind}")
    return tuple((entry.name, entry.value, _package(entry.dist)) for entry in found)


def _package(dist: object) -> str:
    return f"{getattr(dist, 'name', 'a package')} {getattr(dist, 'version', '')}".strip()
