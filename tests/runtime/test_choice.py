from dataclasses import replace

import pytest

from fedvtc.config.operation import ClusterConfig, PlacementConfig
from fedvtc.config.schema import PopulationConfig, RunConfig, TrainingConfig
from fedvtc.runtime.choice import training_s, with_pool

LONG = [2e12] * 8
"""Operations of a forward pass over the images of a round of each of eight clients: together 2,400 s a round."""
SIZES = [640] * 8


@pytest.fixture
def make_config(tiny_config, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def make(num_cpus=4, *, address=None, rounds=1, **placement):
        return tiny_config(
            run=RunConfig(rounds=rounds),
            population=PopulationConfig(8),
            training=TrainingConfig(epochs=2, batch_size=64),
            placement=PlacementConfig(pool="auto", accelerator="cpu", **placement),
            cluster=ClusterConfig(address=address, num_cpus=num_cpus),
        )

    return make


def pool_of(config, costs_K=LONG):
    return with_pool(config, costs_K, SIZES).placement.pool


def test_seconds_are_operations_and_steps_of_all_participants(make_config):
    config = make_config(rounds=5)
    # 8 clients x 5 rounds x (3 passes x 2e10 operations / 2e10 + 2 epochs x 10 steps / 1000).
    assert training_s(config, [2e10] * 8, SIZES) == pytest.approx(40 * (3 + 0.02))
    half = replace(config, run=replace(config.run, participation=0.5))
    assert training_s(half, [2e10] * 8, SIZES) == pytest.approx(20 * (3 + 0.02))
    steps = replace(config, training=TrainingConfig(steps=25, batch_size=64))
    assert training_s(steps, [2e10] * 8, SIZES) == pytest.approx(40 * (3 + 0.025))


def test_ray_is_taken_where_other_actors_take_over_more_than_the_start_of_ray(make_config):
    config = make_config()
    assert pool_of(config) == "ray"
    # Three of four actors save three quarters: 13.3 s are the border.
    second = [2e10 / 3 / 8 - 128e5] * 8
    assert pool_of(config, [13 * cost for cost in second]) == "inline"
    assert pool_of(replace(config, run=RunConfig(rounds=2)), [13 * cost for cost in second]) == "ray"


@pytest.mark.parametrize(
    ("num_cpus", "placement"),
    [(1, {}), (3, {"cpus_per_actor": 2.0}), (4, {"max_actors": 1}), (4, {"clients_per_actor": 8})],
)
def test_one_actor_needs_no_ray(make_config, num_cpus, placement):
    assert pool_of(make_config(num_cpus, **placement)) == "inline"


def test_a_running_cluster_is_used(make_config, monkeypatch):
    assert pool_of(make_config(1, address="10.0.0.1:6379"), [1.0] * 8) == "ray"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert pool_of(make_config(1), [1.0] * 8) == "ray"


@pytest.mark.parametrize("pool", ["ray", "inline"])
def test_a_named_pool_stays(make_config, pool):
    config = make_config(1)
    config = replace(config, placement=replace(config.placement, pool=pool))
    assert with_pool(config, [1.0] * 8, SIZES) is config
