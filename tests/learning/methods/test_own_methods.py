"""Methods outside of the package: `method.name=package.module:Class`, a module in the working folder."""

import sys

import pytest

from fedvtc.config import load, to_yaml
from fedvtc.errors import ConfigError
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.server import Server

SOURCE = """
from typing import Annotated

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


class Unconfigured(Mine):
    config_class = int


@section
class LayersConfig(MethodConfig):
    label: str = "Layered"
    layers: list = None
    '''Layers.'''


class Layered(Mine):
    config_class = LayersConfig


number = 1
"""


NO_METHODS = ["MineConfig", "HalfDone", "HalfClosed", "Plain", "Labelled", "Problematic", "Unconfigured"]


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
