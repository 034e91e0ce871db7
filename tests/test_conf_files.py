import shlex
from pathlib import Path

import pytest

from fedvtc.commands.sweep import load_sweep
from fedvtc.config import Config, field_docs, load
from fedvtc.learning.methods import config_classes

ROOT = Path(__file__).parents[1]
GROUPS = ("data", "population", "method", "cluster", "experiment")
YAMLS = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "conf").rglob("*.yaml"))
SWEEPS = [file for file in YAMLS if file.startswith("conf/sweep/")]
FILES = [file for file in YAMLS if file not in SWEEPS]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_files(group: str):
    assert any(file.startswith(f"conf/{group}/") for file in FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_file_loads_alone(file: str):
    config = load([file], [], methods=config_classes())
    assert config.method.name in config_classes()


@pytest.mark.parametrize("file", SWEEPS)
def test_all_trials_of_a_sweep_have_valid_configs(file: str):
    sweep = load_sweep(Path(file))
    assert len(sweep.trials) > 1
    assert sweep.name == Path(file).stem


def test_there_are_sweeps():
    assert len(SWEEPS) >= 3


@pytest.mark.parametrize("file", [*FILES, *SWEEPS])
def test_a_header_says_what_and_how(file: str):
    header = []
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    assert header[0].startswith("# ")
    assert header[0].rstrip().endswith((".", ",", ":")) or len(header) > 2
    # What stands before `fedvtc` sets the environment.
    commands = [line[line.index("fedvtc ") :] for line in header if line.startswith("#   ") and "fedvtc " in line]
    assert commands
    assert any(file in command for command in commands)
    for command in commands:
        words = [word for word in shlex.split(command)[2:] if not word.startswith("--")]
        files = [word for word in words if word.endswith(".yaml")]
        if command.startswith("fedvtc table"):
            continue
        if file in SWEEPS:
            load_sweep(Path(files[0]), words[1:])
            continue
        load(files, [word for word in words if word not in files], methods=config_classes())


def test_base_is_the_defaults_and_names_every_key():
    assert load(["conf/base.yaml"], [], methods=config_classes()) == load([], [], methods=config_classes())
    text = Path("conf/base.yaml").read_text(encoding="utf-8")
    for doc in field_docs(Config):
        assert f"{doc.key.rsplit('.', 1)[-1]}:" in text, doc.key
