"""The backbone and the data set of docs/own-code.md run and resume outside of the package."""

import json
import sys

import pytest
import yaml

from fedvtc.config import load
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.storage.run_folder import RunFolder


@pytest.fixture
def project(blocks, root, tmp_path, monkeypatch):
    """A working folder with the files of the page."""
    page = root / "docs/own-code.md"
    for name, code in zip(("my_nets", "my_data"), blocks(page, "python"), strict=True):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    sections = [yaml.safe_load(text) for text in blocks(page, "yaml")]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sections[0] | sections[1]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_nets", "my_data"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_examples_run_and_a_resume_with_other_code_says_so(project, tiny_run, root, capsys, golden):
    inline, overrides = tiny_run
    files = [root / inline[0], "mine.yaml"]
    words = [word for word in overrides if not word.startswith("population.backbones")]
    config = load(files, [*words, "run.rounds=1", "run.name=own", "method.name=local"], methods=config_classes())

    folder = run_federation(config, plain=True).folder
    assert "changed" not in capsys.readouterr().out
    resume_federation(folder, ["run.rounds=2"], plain=True)
    assert "changed" not in capsys.readouterr().out
    with (project / "my_nets.py").open("a") as file:
        file.write("# A change.\n")
    resume_federation(folder, ["run.rounds=3"], plain=True)

    (line,) = [line for line in capsys.readouterr().out.splitlines() if "changed" in line]
    golden(line.replace(str(folder), "FOLDER"))
    first, second, third = [attempt["code"] for attempt in RunFolder.open(folder).attempts]
    assert first == second
    assert first.keys() == third.keys() == {"my_nets:two_layers", "my_data:stripes"}
    assert [name for name in first if first[name] != third[name]] == ["my_nets:two_layers"]
    assert json.loads((folder / "run.json").read_text())["data"]["classes"].keys() == {"horizontal", "vertical"}
    clients = (folder / "clients.csv").read_text()
    assert "my_nets:two_layers" in clients
    assert "cnn_2x8" in clients


def test_the_entry_points_of_the_page_are_those_that_fedvtc_reads(blocks, root):
    import tomllib
    from typing import get_args

    from fedvtc.config.registered import Kind

    (text,) = blocks(root / "docs/own-code.md", "toml")
    groups = tomllib.loads(text)["project"]["entry-points"]
    assert set(groups) == {f"fedvtc.{kind}" for kind in get_args(Kind)}
