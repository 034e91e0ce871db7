import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from fedvtc.config import Config, to_dict
from fedvtc.config.operation import CheckpointConfig
from fedvtc.config.schema import BackboneShare, OptimizerConfig, PopulationConfig, RunConfig
from fedvtc.learning.methods.fedvtc import FedVTCConfig


def test_sections_are_made_in_code_by_position_and_by_name():
    population = PopulationConfig(3, [BackboneShare("cnn_2x8", 1.0)], feature_size=6)
    assert (population.num_clients, population.backbones[0].share, population.feature_size) == (3, 1.0, 6)
    assert RunConfig(seed=3) == replace(RunConfig(), seed=3)
    assert not CheckpointConfig(async_=False).async_


def test_sections_are_equal_hashable_and_frozen():
    assert Config() == Config()
    assert hash(RunConfig(seed=3)) == hash(RunConfig(seed=3)) != hash(RunConfig(seed=4))
    with pytest.raises(FrozenInstanceError):
        RunConfig().seed = 4


def test_a_config_is_pickled_whole():
    config = replace(Config(), method=FedVTCConfig(label="x"))
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_key_of_a_field_is_no_word_of_python():
    assert asdict(CheckpointConfig())["async_"] is True
    assert to_dict(Config())["checkpoint"]["async"] is True


@pytest.mark.parametrize("values", [{"lr": 0.0}, {"lr": float("nan")}, {"name": "adagrad"}, {"learning_rate": 1}])
def test_a_section_is_not_made_with_a_value_that_cannot_work(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        OptimizerConfig(**values)
