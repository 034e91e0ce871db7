"""`fedvtc init` writes a project whose configs load. tests/integration/test_wheel.py runs the project."""

import sys

import pytest

from fedvtc.commands.init.command import PROJECT
from fedvtc.commands.main import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("shared_head", None)


def test_the_configs_of_a_new_project_load(empty_folder, monkeypatch, capsys):
    assert main(["init", "mine"]) == 0
    written = sorted(file.name for file in (empty_folder / "mine").iterdir())
    assert written == [
        ".gitignore",
        "README.md",
        "experiment.yaml",
        "shared_head.py",
        "sweep.yaml",
        "test_shared_head.py",
    ]
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "Next: cd mine && fedvtc run experiment.yaml"

    monkeypatch.chdir("mine")
    assert main(["plan", "experiment.yaml", "--print-config"]) == 0
    assert "name: shared_head:SharedHead" in capsys.readouterr().out


def test_the_readme_of_the_project_has_five_commands():
    _, block, _ = (PROJECT / "README.md").read_text().split("```")
    assert [line.partition(" #")[0].strip() for line in block.strip().splitlines()] == [
        "fedvtc run experiment.yaml",
        "fedvtc run experiment.yaml method/local",
        "fedvtc list",
        "fedvtc sweep sweep.yaml",
        "python -m pytest",
    ]


@pytest.mark.parametrize("name", ["used", "file", "file/below"])
def test_files_are_never_replaced(name, empty_folder, golden, keys_of, capsys):
    (empty_folder / "used").mkdir()
    (empty_folder / "used/README.md").write_text("mine")
    (empty_folder / "file").write_text("mine")
    assert main(["init", name]) == 2
    message = capsys.readouterr().err
    assert keys_of(message) == [name]
    golden(message)
    assert (empty_folder / "used/README.md").read_text() == "mine"
