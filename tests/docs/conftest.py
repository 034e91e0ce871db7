"""Fixtures for tests of the documents: `document` runs a test once per document, the others read parts of one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "jobs/**/*.md", "benchmarks/**/*.md", "conf/**/*.md")
# Hidden folders hold what a command made here, such as the environments of benchmarks/peers.
DOCUMENTS = sorted(
    file
    for pattern in PATTERNS
    for file in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)
)


def pytest_generate_tests(metafunc):
    """Gives each test of `document` all documents, and each test of `document_with_commands` those with commands."""
    choices = {
        "document": DOCUMENTS,
        "document_with_commands": [path for path in DOCUMENTS if commands_in(path)],
    }
    for name in choices.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, choices[name], ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks_in(path, language):
    """The fenced blocks of a document in a language; the language of an unmarked block is ''."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for mark, text in found if mark == language]


def commands_in(path):
    """The lines of shell blocks that start with `fedvtc`, also after a prompt or environment variables."""
    shells = [text for mark in ("", "sh", "bash", "console") for text in blocks_in(path, mark)]
    lines = [line for text in shells for line in text.splitlines()]
    found = [re.fullmatch(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?(fedvtc \S.*)", line) for line in lines]
    return [match[1] for match in found if match]


def rows_in(path, start):
    """The cells of each table row whose first cell is a code span that begins with `start`."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{start}")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


@pytest.fixture
def root():
    """Root of the repository."""
    return ROOT


@pytest.fixture
def documents():
    """Paths of all documents."""
    return DOCUMENTS


@pytest.fixture
def blocks():
    """The function `blocks_in`."""
    return blocks_in


@pytest.fixture
def commands():
    """The function `commands_in`."""
    return commands_in


@pytest.fixture
def rows():
    """The function `rows_in`."""
    return rows_in


@pytest.fixture
def tiny_run():
    """Arguments of `load` for a run of two rounds and two clients in this process: files and overrides."""
    overrides = ["run.rounds=2", "population.num_clients=2", "population.feature_size=8", "partition.alpha=100"]
    return ["conf/cluster/inline.yaml"], [*overrides, "population.backbones=[{name: cnn_2x8, share: 1}]"]
