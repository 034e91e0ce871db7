"""The plan of the house: which module may import which. See docs/architecture.md."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/fedvtc"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 290

FLOORS = (
    {
        "__init__",
        "config",
        "statistics",
        "messages",
        "gaussians",
        "seeding",
        "errors",
        "incidents",
        "versions",
        "naming",
    },
    {"data", "models", "metrics", "population"},
    {"client", "training"},
    {"methods"},
    {"runtime", "checkpoint"},
    {"federation", "attempt", "checkpointing", "stopping", "run", "resuming", "tracking", "reporting"},
    {"planning", "listing", "doctor", "submission", "sweep"},
    {"cli", "commands", "command_words", "examples", "__main__"},
)
WITH_RAY = ("runtime", "submission", "sweep")
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def unit_of(name):
    """`models` of `models/zoo/cnn.py`, `client` of `client.py`."""
    return name.split("/")[0].removesuffix(".py")


def imports_of(source, name):
    """Dotted names of all that a module imports, also inside functions and for types only."""
    package = ["fedvtc", *name.split("/")[:-1]]
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            imported += [".".join([*base, alias.name]) for alias in node.names]
    return imported


def faults(source, name):
    """What in a module's imports breaks the plan."""
    found = []
    for imported in imports_of(source, name):
        library, *inside = imported.split(".")
        if library == "ray" and unit_of(name) not in WITH_RAY:
            found.append(f"{name} imports {imported}: only {WITH_RAY} import ray")
        # `from fedvtc import __version__` names no module of its own.
        unit = inside[0] if inside and inside[0] in FLOOR_OF else "__init__"
        if library == "fedvtc" and FLOOR_OF[unit] > FLOOR_OF[unit_of(name)]:
            found.append(f"{name} imports {imported}, which is on a higher floor")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_floor_or_below(path):
    assert unit_of(name_of(path)) in FLOOR_OF, "give it a floor in FLOORS and in docs/architecture.md"

    assert faults(path.read_text(), name_of(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_plain_and_about_something(path):
    text = path.read_bytes()

    assert text.isascii()
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("client.py", "import fedvtc.federation"),
        ("client.py", "from fedvtc import methods"),
        ("client.py", "from .methods import base"),
        ("models/zoo/cnn.py", "from ...client import FederatedClient"),
        ("config/schema.py", "def later():\n    from fedvtc.data.partition import make_partition"),
        ("client.py", "import ray"),
        ("federation.py", "from ray.util import placement_group"),
    ],
)
def test_imports_from_above_and_of_ray_are_found(name, source):
    assert len(faults(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("client.py", "import numpy\nfrom fedvtc.training import fit\nfrom fedvtc.data import Dataset"),
        ("models/zoo/cnn.py", "from . import norm\nfrom ..backbones import ZOO\nfrom ... import errors"),
        ("runtime/ray_pool.py", "import ray\nimport ray.util"),
        ("submission/jobs.py", "from ray.job_submission import JobDetails"),
        ("sweep/tuning.py", "def later():\n    from ray import tune"),
        ("config/schema.py", "from fedvtc import __version__"),
    ],
)
def test_imports_from_below_are_allowed(name, source):
    assert faults(source, name) == []
