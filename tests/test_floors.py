"""The rooms of the package: nine names in one column, imports from lower floors only, and no import circles."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/fedvtc"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 290

FLOORS = (
    ("errors",),
    ("config",),
    ("learning",),
    ("storage",),
    ("reporting", "runtime"),
    ("tracking",),
    ("federation", "testing"),
    ("commands",),
    ("__main__",),
)
FLOOR_OF = {"__init__": -1} | {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITH_RAY = ("runtime/actors/", "commands/sweep/", "commands/submit/")
WITH_WANDB = ("tracking/wandb/",)
PROJECT = {"PIL": "pillow", "grpc": "grpcio", "pydantic_core": "pydantic", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Names of projects that differ from the names of their modules."""


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(name):
    """`learning` for `learning/models/zoo/cnn.py`, `errors` for `errors.py`."""
    return name.split("/")[0].removesuffix(".py")


def statements(tree, inside_functions):
    """Yields the statements of a module in any order; those of function bodies only if `inside_functions` is true."""
    for node in ast.iter_child_nodes(tree):
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from statements(node, inside_functions)


def imports_of(source, name, *, inside_functions=True):
    """Dotted names of all imports of a module, including imports for types only."""
    package = ["fedvtc", *name.split("/")[:-1]]
    imported = []
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            imported += [".".join([*base, alias.name]) for alias in node.names]
    return imported


def faults(source, name):
    """One line for each import that is not allowed in the module `name`."""
    found = []
    for imported in imports_of(source, name):
        library, *inside = imported.split(".")
        for allowed, where in (("ray", WITH_RAY), ("wandb", WITH_WANDB)):
            if library == allowed and not name.startswith(where):
                found.append(f"{name} imports {imported}: only {where} import {allowed}")
        if library != "fedvtc":
            continue
        # `from fedvtc import __version__` names no room.
        room = inside[0] if inside and inside[0] in FLOOR_OF else "__init__"
        is_below = FLOOR_OF[room] < FLOOR_OF[room_of(name)]
        if not is_below and room != room_of(name):
            found.append(f"{name} imports {imported}, which is not on a lower floor")
    return found


def packages_of(module):
    """`a` and `a.b` for `a.b.c`."""
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def import_graph(sources):
    """For each module, the modules of the package that Python loads for its top-level imports, also for types only.

    An import of `a.b.c` loads the packages `a` and `a.b` too. The packages that a module lies in are loaded before the
    module, and count only if the module imports a name from the package itself.

    Args:
        sources: source text and file name by dotted name, such as `fedvtc.config.schema`.
    """
    graph = {}
    for module, (source, name) in sources.items():
        imported = imports_of(source, name, inside_functions=False)
        # `from fedvtc.config import Config` imports the package, `from fedvtc.config import schema` the module.
        targets = {target if target in sources else target.rpartition(".")[0] for target in imported}
        loaded = {package for target in targets for package in packages_of(target)} - packages_of(module)
        graph[module] = (targets | loaded) & sources.keys() - {module}
    return graph


def circles(graph):
    """Groups of nodes that all reach each other, each group sorted."""
    reached = {node: set() for node in graph}
    for start, seen in reached.items():
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
    groups = {frozenset(other for other in seen if node in reached[other]) for node, seen in reached.items()}
    return sorted(sorted(group) for group in groups if group)


def test_the_package_has_the_planned_rooms_and_no_others():
    entries = {room_of(name_of(path)) for path in MODULES}

    assert entries == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_room_or_a_lower_floor(path):
    assert faults(path.read_text(), name_of(path)) == []


def dotted_name(path):
    parts = ["fedvtc", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_circle():
    assert circles(import_graph({dotted_name(path): (path.read_text(), name_of(path)) for path in MODULES})) == []


def test_no_rooms_import_each_other_in_a_circle():
    graph = {room: set() for room in FLOOR_OF}
    for path in MODULES:
        room = room_of(name_of(path))
        inside = [name.split(".")[1] for name in imports_of(path.read_text(), name_of(path)) if name[:7] == "fedvtc."]
        graph[room] |= set(inside) & graph.keys() - {room}

    assert circles(graph) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_ascii_short_and_has_a_telling_name(path):
    text = path.read_bytes()

    assert text.isascii()
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("learning/client/client.py", "import fedvtc.federation"),
        ("learning/client/client.py", "from fedvtc import storage"),
        ("learning/client/client.py", "from ...runtime import host"),
        ("config/schema.py", "def later():\n    from fedvtc.learning.data import partition"),
        ("reporting/runs.py", "from fedvtc.runtime import pool"),
        ("runtime/pool.py", "from fedvtc.reporting import tables"),
        ("learning/client/client.py", "import ray"),
        ("runtime/host.py", "import ray"),
        ("federation/rounds.py", "from ray.util import placement_group"),
        ("commands/plan/plan.py", "def later():\n    import wandb"),
    ],
)
def test_a_forbidden_import_is_found(name, source):
    assert len(faults(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("learning/client/client.py", "import numpy\nfrom fedvtc.learning.methods import base\nimport fedvtc.config"),
        ("learning/models/zoo/cnn.py", "from . import norm\nfrom ..backbones import ZOO\nfrom .... import errors"),
        ("runtime/actors/pool.py", "import ray\nimport ray.util"),
        ("commands/submit/jobs.py", "from ray.job_submission import JobDetails"),
        ("commands/sweep/tuning.py", "def later():\n    from ray import tune"),
        ("tracking/wandb/tracker.py", "def later():\n    import wandb"),
        ("config/schema.py", "from fedvtc import __version__"),
    ],
)
def test_an_allowed_import_is_no_fault(name, source):
    assert faults(source, name) == []


def test_a_circle_is_found_and_an_import_inside_a_function_closes_none():
    sources = {
        "fedvtc.a": ("from fedvtc.b import x", "a.py"),
        "fedvtc.b": ("if TYPE_CHECKING:\n    from fedvtc import c", "b.py"),
        "fedvtc.c": ("def later():\n    import fedvtc.a", "c.py"),
        "fedvtc.d": ("import fedvtc.c", "d.py"),
    }
    assert circles(import_graph(sources)) == []

    sources["fedvtc.c"] = ("import fedvtc.a", "c.py")
    assert circles(import_graph(sources)) == [["fedvtc.a", "fedvtc.b", "fedvtc.c"]]


def test_a_circle_through_a_package_is_found():
    sources = {
        "fedvtc.client": ("from fedvtc.methods.fedvtc import steps", "client.py"),
        "fedvtc.methods": ("from fedvtc.methods.base import Method", "methods/__init__.py"),
        "fedvtc.methods.base": ("from fedvtc.client import Client", "methods/base.py"),
        "fedvtc.methods.fedvtc": ("", "methods/fedvtc/__init__.py"),
        "fedvtc.methods.fedvtc.steps": ("", "methods/fedvtc/steps.py"),
    }

    assert circles(import_graph(sources)) == [["fedvtc.client", "fedvtc.methods", "fedvtc.methods.base"]]


def test_every_imported_library_is_a_dependency():
    # A library that another one brings along may be gone with the next version of the other.
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    named = {re.match(r"[\w-]+", line)[0].lower().replace("-", "_").removesuffix("_python") for line in needed}
    # Not `imports_of`, which takes a second for all modules.
    lines = r"^ *(?:import|from) (\w+)[\w.]*(?: import .*| as \w+)?$"
    tops = {top for path in MODULES for top in re.findall(lines, path.read_text(), re.MULTILINE)}
    libraries = {PROJECT.get(top, top).lower().replace("-", "_") for top in tops - sys.stdlib_module_names}
    # The test of the project that `fedvtc init` writes imports its method.
    assert libraries - named == {"fedvtc", "shared_head"}
