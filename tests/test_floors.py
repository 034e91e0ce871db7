"""The plan of the house: nine names in one column, and each imports only what stands below it."""

import ast
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
    ("federation",),
    ("commands",),
    ("__main__",),
)
FLOOR_OF = {"__init__": -1} | {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITH_RAY = ("runtime/actors/", "commands/sweep/", "commands/submit/")
WITH_WANDB = ("tracking/wandb/",)


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(name):
    """`learning` of `learning/models/zoo/cnn.py`, `errors` of `errors.py`."""
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
    """The imports of a module that break the plan."""
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


def test_the_rooms_are_those_of_the_plan():
    entries = {room_of(name_of(path)) for path in MODULES}

    assert entries == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_room_or_from_below(path):
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
def test_imports_from_above_or_beside_and_of_ray_and_wandb_are_found(name, source):
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
def test_imports_from_below_are_allowed(name, source):
    assert faults(source, name) == []
