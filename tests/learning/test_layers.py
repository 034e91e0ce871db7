"""The parts of learning/ in one column: each imports only itself and the parts before it."""

import ast
from pathlib import Path

import pytest

LEARNING = Path(__file__).parents[2] / "src/fedvtc/learning"
PARTS = (
    *("seeding", "costs", "peak_memory", "exchange", "data", "models", "population", "client", "server", "methods"),
    *("privacy", "metrics", "round_tally", "ensemble"),
)
MODULES = sorted(path for path in LEARNING.rglob("*.py") if path.parent != LEARNING or path.stem != "__init__")


def part_of(path):
    return path.relative_to(LEARNING).parts[0].removesuffix(".py")


def imports_at_run_time(path):
    """Parts that a module imports, also inside functions, but not for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[2] for name in names if name.startswith("fedvtc.learning.")}


def test_the_parts_are_those_of_the_column():
    assert {part_of(path) for path in MODULES} == set(PARTS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LEARNING).as_posix())
def test_a_module_imports_its_own_part_and_those_before_it(path):
    allowed = PARTS[: PARTS.index(part_of(path)) + 1]
    assert imports_at_run_time(path) <= set(allowed)
