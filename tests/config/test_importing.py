"""The user's own backbones, loaders and trackers: a fault names the place of the entry in the config."""

import sys

import pytest

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.config.importing import own_code_problems
from fedvtc.learning.methods import config_classes

CONFIG = """\
data:
  name: importing_missing:images
population:
  backbones:
    - {name: cnn_2x8, share: 0.5}
    - {name: importing_broken:net, share: 0.5}
tracking:
  trackers:
    - tensorboard
    - importing_whole:Absent
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """A working folder with a module that imports an absent module, one that is no Python, and a whole one."""
    (tmp_path / "importing_missing.py").write_text("import absent_library\n")
    (tmp_path / "importing_broken.py").write_text("def\n")
    (tmp_path / "importing_whole.py").write_text("def net(num_channels, image_size): ...\n\n\nnumber = 1\n")
    (tmp_path / "mine.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("importing_")]:
        del sys.modules[name]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_code_that_cannot_be_imported_is_reported_with_file_and_line(command, capsys, tmp_path, golden):
    assert main([command, "mine.yaml"]) == 2
    golden(capsys.readouterr().err, {str(tmp_path): "FOLDER"})
    assert not (tmp_path / "outputs").exists()


def test_a_key_of_the_command_line_is_reported_as_such(capsys):
    backbones = "population.backbones=[{name: importing_whole:number, share: 1}]"
    assert main(["plan", "conf/experiment/digits.yaml", backbones]) == 2
    printed = capsys.readouterr().err
    assert "population.backbones[0].name: importing_whole:number is not a function (command line)." in printed


def test_printing_a_config_imports_no_code(capsys):
    assert main(["plan", "mine.yaml", "--print-config"]) == 0
    assert "importing_missing:images" in capsys.readouterr().out
    assert not any(name.startswith("importing_") for name in sys.modules)


def test_names_of_the_package_and_of_timm_are_no_own_code():
    backbones = "population.backbones=[{name: 'timm:resnet10t', share: 0.5}, {name: cnn_2x8, share: 0.5}]"
    config = load([], [backbones, "tracking.trackers=[wandb]"], methods=config_classes())
    assert list(own_code_problems(config)) == []
