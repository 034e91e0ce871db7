"""Methods outside of the package: `method.name=package.module:Class`, a module in the working folder."""

import sys

import pytest

from fedvtc.commands.main import main
from fedvtc.config import load, to_yaml
from fedvtc.config.changes import rounds_key
from fedvtc.config.own_code import OwnCodeError
from fedvtc.errors import ConfigError
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.server import Server

SOURCE = """
from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Method


@section
class MineConfig(MethodConfig):
    weight: Annotated[float, Field(ge=0)] = 0.5
    '''Weight.'''


class Mine(Method[MineConfig]):
    config_class = MineConfig

    def client_round(self, client, broadcast):
        return Upload(0, 1, 2)

    def server_round(self, state, uploads, server):
        self.rounds = 1
        return state, Broadcast()


class HalfDone(Method[MineConfig]):
    config_class = MineConfig

    def client_round(self, client, broadcast):
        return Upload(0, 1, 2)


class HalfClosed(Mine):
    def closing_upload(self, client, broadcast):
        return Upload(0, 1, 2)


class PlainConfig(MethodConfig):
    weight: float = 0.5


class Plain(Mine):
    config_class = PlainConfig


@section
class LabelConfig(MethodConfig):
    label: int = 3
    '''Label.'''


class Labelled(Mine):
    config_class = LabelConfig


@section
class ProblemsConfig(MethodConfig):
    problems: float = 0.5
    '''Problems.'''


class Problematic(Mine):
    config_class = ProblemsConfig


@section
class InnerConfig:
    pair: tuple[int, int] | None = None
    '''Pair.'''


@section
class UnreadableConfig(MethodConfig):
    folder: Path = Path(".")
    '''Folder.'''
    inner: InnerConfig = field(default_factory=InnerConfig)
    '''Inner.'''
    known: list[dict[str, int | None]] = field(default_factory=list)
    '''Known.'''


class Unreadable(Mine):
    config_class = UnreadableConfig


class Unconfigured(Mine):
    config_class = int


@section
class LayersConfig(MethodConfig):
    label: str = "Layered"
    layers: list = None
    '''Layers.'''


class Layered(Mine):
    config_class = LayersConfig


@section
class FailingConfig(MethodConfig):
    hook: str = ""
    '''Function that fails.'''

    def __post_init__(self):
        if self.hook in ("check", "crash"):
            raise {"check": ValueError, "crash": KeyError}[self.hook]("odd hook")

    def problems(self, config):
        fail(self, "problems")
        return {"none": None, "bare": ["odd hook"]}.get(self.hook, [])

    def of_rounds(self):
        fail(self, "of_rounds")


class Failing(Mine):
    config_class = FailingConfig
    sends_in_rounds = False

    def __init__(self, config, task):
        fail(config, "__init__")
        super().__init__(config, task)

    @property
    def has_finish(self):
        fail(self.config, "has_finish")
        return False

    def start(self):
        fail(self.config, "start")
        states = {"no state": None, "set": ({"seen": [1, {2}]}, Broadcast()), "text": ({"names": TEXTS}, Broadcast())}
        return states.get(self.config.hook, super().start())

    def largest_upload(self):
        fail(self.config, "largest_upload")
        return None if self.config.hook == "no upload" else super().largest_upload()

    def privacy_loss(self, num_images):
        fail(self.config, "privacy_loss")

    def working_bytes(self, classifier, *, samples_per_class):
        fail(self.config, "working_bytes")
        return None if self.config.hook == "no bytes" else {}


TEXTS = np.array(["a"])


def fail(config, hook):
    if config.hook == hook:
        raise KeyError("odd hook")


number = 1
"""


NO_METHODS = ["MineConfig", "HalfDone", "HalfClosed", "Plain", "Labelled", "Problematic", "Unreadable", "Unconfigured"]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A working folder with the modules own_methods and broken_methods."""
    (tmp_path / "own_methods.py").write_text(SOURCE)
    (tmp_path / "broken_methods.py").write_text("def\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_methods", None)


def loaded(*overrides, **options):
    return load([], overrides, methods=config_classes(**options))


FAILING = """\
data:
  name: digits
population:
  num_clients: 2
  backbones: [{name: cnn_2x8, share: 1}]
placement:
  pool: inline
method:
  name: own_methods:Failing
"""


@pytest.mark.parametrize(
    ("command", "hook"),
    [
        *[("plan", hook) for hook in ["check", "crash", "problems", "none", "bare", "__init__", "has_finish"]],
        *[("plan", hook) for hook in ["largest_upload", "no upload", "privacy_loss", "working_bytes", "no bytes"]],
        *[("run", hook) for hook in ["start", "no state", "set", "text"]],
    ],
)
def test_a_function_that_fails_before_the_training_is_one_line_with_its_place(command, hook, tmp_path, capsys, golden):
    (tmp_path / "mine.yaml").write_text(FAILING)
    assert main([command, "mine.yaml", f"method.hook={hook}"]) == 2
    golden(capsys.readouterr().err)


def test_keys_of_rounds_that_fail_or_are_none_name_the_function():
    faults = {"of_rounds": "raises KeyError: 'odd hook', own_methods.py:", "''": "returns null, not a section"}
    for hook, fault in faults.items():
        with pytest.raises(OwnCodeError, match=fault):
            rounds_key(loaded("method.name=own_methods:Failing", f"method.hook={hook}"))


def test_defaults_that_the_section_refuses_are_a_problem(tmp_path, golden):
    source = SOURCE.replace('hook: str = ""', 'hook: str = "check"')
    (tmp_path / "own_refusals.py").write_text(source)
    with pytest.raises(ConfigError) as error:
        loaded("method.name=own_refusals:Failing")
    golden(str(error.value))


def test_a_module_in_the_working_folder_is_a_method(tmp_path):
    config = loaded("method.name=own_methods:Mine", "method.weight=2")
    assert type(config.method).__name__ == "MineConfig"
    assert (config.method.name, config.method.weight) == ("own_methods:Mine", 2.0)
    assert sys.path[-1] == str(tmp_path)
    method = build(config.method, Task(num_classes=2, num_channels=1, image_size=8, feature_size=2, seed=0))
    assert method.client_round(None, Broadcast()) == Upload(0, 1, 2)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(["config.yaml"], [], methods=config_classes()) == config


def test_the_keys_of_an_own_method_are_checked(keys_of):
    with pytest.raises(ConfigError) as refused:
        loaded("method.name=own_methods:Mine", "method.weight=-1", "method.wieght=1")
    assert keys_of(refused.value) == ["method.wieght", "method.weight"]


@pytest.mark.parametrize("name", ["absent:Mine", "broken_methods:Mine", "own_methods:Absent", "own_methods:number"])
def test_a_name_without_a_class_is_refused(name, tmp_path, golden, keys_of):
    with pytest.raises(ConfigError) as refused:
        loaded(f"method.name={name}", "method.weight=2")
    assert keys_of(refused.value) == ["method.name"]
    golden(refused.value)


@pytest.mark.parametrize("name", NO_METHODS)
def test_a_class_that_is_no_whole_method_is_refused(name, golden, keys_of):
    with pytest.raises(ConfigError) as refused:
        loaded(f"method.name=own_methods:{name}")
    assert keys_of(refused.value) == ["method.name"]
    golden(refused.value)


def test_a_default_that_does_not_fit_its_key_is_named(golden, keys_of):
    with pytest.raises(ConfigError) as refused:
        loaded("method.name=own_methods:Layered")
    assert keys_of(refused.value) == ["method.layers"]
    golden(refused.value)
    # Another default of a key that every method has is the user's choice.
    assert loaded("method.name=own_methods:Layered", "method.layers=[1]").method.label == "Layered"


def test_code_is_not_imported_where_it_is_refused(golden, keys_of):
    with pytest.raises(ConfigError) as refused:
        loaded("method.name=own_methods:Mine", refusal="Give --trust.")
    assert keys_of(refused.value) == ["method.name"]
    golden(refused.value)
    assert "own_methods" not in sys.modules


def test_an_attribute_set_on_a_method_is_refused(golden):
    method = build(loaded("method.name=own_methods:Mine").method, Task(2, 1, 8, feature_size=2, seed=0))
    with pytest.raises(AttributeError) as refused:
        method.server_round({}, [], Server(0, 1))
    golden(refused.value)
