"""Hashes of the files of the user's own code, by which a resumed run notices other code."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedvtc.config.names import TIMM
from fedvtc.config.own_code import find_own_folders
from fedvtc.config.registered import Kind, import_path
from fedvtc.config.schema import Config


def code_hashes(config: Config) -> dict[str, str]:
    """Returns a SHA-256 for each method, backbone and data set of the user's own, by its name in the config.

    The hash is that of the module's file; for a module in a package, that of all Python files of the package. Modules
    that the file imports from elsewhere do not count.
    """
    names: list[tuple[Kind, str]] = [("methods", config.method.name), ("data", config.data.name)]
    names += [("backbones", entry.name) for entry in config.population.backbones if not entry.name.startswith(TIMM)]
    paths = {name: import_path(kind, name, ()) for kind, name in names}
    return {name: _hash(path.partition(":")[0]) for name, path in paths.items() if path is not None}


def changed_code(attempts: Iterable[Mapping[str, Any]], hashes: Mapping[str, str]) -> list[str]:
    """Returns the names whose code differs from that of the last attempt with the name.

    Args:
        attempts: the attempts of run.json, whose `code` holds hashes by name.
        hashes: the present hashes by name.
    """
    known: dict[str, str] = {}
    for attempt in attempts:
        known |= attempt.get("code", {})
    return [name for name, digest in hashes.items() if known.get(name, digest) != digest]


def _hash(module: str) -> str:
    digest = hashlib.sha256()
    for name, file in _files(module.partition(".")[0]):
        content = file.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """Yields each Python file of a package, or the file of a module, with its path inside of the package."""
    find_own_folders()
    spec = find_spec(package)
    if spec is None:
        return
    folders = sorted(spec.submodule_search_locations or ())
    for folder in map(Path, folders):
        for file in sorted(folder.rglob("*.py")):
            yield file.relative_to(folder).as_posix(), file
    if not folders and spec.origin is not None and Path(spec.origin).is_file():
        yield "", Path(spec.origin)
