from dataclasses import replace
from pathlib import Path

import pytest

from fedvtc.config import Config, load
from fedvtc.errors import ClusterError, UserError
from fedvtc.methods import config_classes
from fedvtc.planning import ACTOR_BYTES, make_plan, pack_clients, placement_lines, save_picture
from fedvtc.runtime.placement import Packing


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def config(*overrides: str) -> Config:
    return load([], overrides, methods=config_classes())


@pytest.mark.parametrize(
    ("overrides", "cpus", "gpus", "packing"),
    [
        (["population.num_clients=40"], 2, 0, Packing(2, 40, 2)),
        (["population.num_clients=3"], 8, 0, Packing(3, 1, 8)),
        (["population.num_clients=7"], 3, 0, Packing(3, 7, 3)),
        (["population.num_clients=40", "placement.cpus_per_actor=0.05"], 2, 0, Packing(40, 1, 40)),
        (["population.num_clients=40", "placement.clients_per_actor=20"], 2, 0, Packing(2, 20, 2)),
        (["population.num_clients=40", "cluster.num_cpus=16"], 2, 0, Packing(16, 40, 16)),
        (["population.num_clients=8", "placement.gpus_per_actor=0.25"], 16, 1, Packing(4, 8, 4)),
        (["population.num_clients=8", "placement.gpus_per_actor=1", "cluster.num_gpus=2"], 16, 0, Packing(2, 8, 2)),
        (["population.num_clients=8", "placement.pool=inline"], 1, 0, Packing(0, 8, 1)),
        (
            ["population.num_clients=8", "cluster.address=auto", "placement.clients_per_actor=1"],
            1,
            0,
            Packing(8, 1, 8),
        ),
    ],
)
def test_packing(overrides: list[str], cpus: int, gpus: int, packing: Packing):
    assert pack_clients(config(*overrides), cpus, gpus) == packing


@pytest.mark.parametrize(
    ("overrides", "cpus", "gpus", "line"),
    [
        (
            ["population.num_clients=40", "placement.clients_per_actor=1"],
            2,
            0,
            "placement: 40 actors x 1 CPU need 40 CPUs; this machine has 2. "
            "Set placement.clients_per_actor=auto or placement.cpus_per_actor=0.05.",
        ),
        (
            ["placement.cpus_per_actor=3"],
            2,
            0,
            "placement: 1 actor x 3 CPU needs 3 CPUs; this machine has 2. Set placement.cpus_per_actor=2.",
        ),
        (
            ["placement.gpus_per_actor=0.25"],
            2,
            0,
            "placement: 1 actor x 0.25 GPU needs 0.25 GPUs; this machine has 0. Set placement.gpus_per_actor=0.",
        ),
        (
            ["population.num_clients=3", "placement.clients_per_actor=1", "placement.gpus_per_actor=1"],
            8,
            1,
            "placement: 3 actors x 1 GPU need 3 GPUs; this machine has 1. "
            "Set placement.clients_per_actor=auto or placement.gpus_per_actor=0.3333.",
        ),
        (
            ["population.num_clients=7", "placement.clients_per_actor=1", "placement.gpus_per_actor=1"],
            8,
            2,
            "placement: 7 actors x 1 GPU need 7 GPUs; this machine has 2. "
            "Set placement.clients_per_actor=auto or placement.gpus_per_actor=0.25.",
        ),
    ],
)
def test_what_does_not_fit_and_what_would(overrides: list[str], cpus: int, gpus: int, line: str):
    with pytest.raises(ClusterError) as caught:
        pack_clients(config(*overrides), cpus, gpus)
    assert str(caught.value) == line
    assert caught.value.args
    fix = line.rpartition("=")[2].rstrip(".")
    key = line.rpartition("=")[0].rpartition(" ")[2]
    pack_clients(config(*overrides, f"{key}={fix}"), cpus, gpus)


def test_a_plan_of_the_digits():
    plan = make_plan(config("population.num_clients=4", "placement.pool=inline", "population.feature_size=8"))
    assert plan.counts_KC.shape == (4, 10)
    assert plan.class_names == tuple("0123456789")
    assert sorted(plan.backbones) == ["cnn_2x16", "cnn_3x32", "resnet8", "vit_tiny"]
    # Every training image has one client.
    assert 1000 < plan.counts_KC.sum() < 1797
    weights = sum(plan.parameters.values())
    assert plan.dataset_bytes == 1797 * 64
    assert plan.memory_bytes == ACTOR_BYTES + 16 * weights + plan.dataset_bytes
    up = plan.payload_bytes["up"]
    # 10 classes of 8 float32 features at the least.
    assert up["prototypes"] >= 10 * 8 * 4


def test_the_parameters_include_the_head():
    def parameters(num_features: int) -> int:
        overrides = [f"population.feature_size={num_features}", "population.backbones=[{name: cnn_2x8, share: 1}]"]
        return make_plan(config("method.name=local", "placement.pool=inline", *overrides)).parameters["cnn_2x8"]

    # The last layer before the features is linear, so every feature costs its inputs, its bias and the head's 10.
    step = parameters(9) - parameters(8)
    assert parameters(11) - parameters(9) == 2 * step
    assert step > 10


def test_memory_that_does_not_fit_is_said():
    plan = make_plan(
        config("method.name=local", "population.backbones=[{name: cnn_2x8, share: 1}]", "cluster.num_cpus=4")
    )
    assert placement_lines(plan, 16 * 10**9)[0] == (
        "Placement: 8 clients in 4 actors of 1 CPU, up to 8 in one; this machine has slots for 4."
    )
    assert len(placement_lines(plan, 16 * 10**9)) == 2
    assert placement_lines(plan, 10**9)[2] == (
        "Memory: 2.5 GB do not fit, this machine has 1.0 GB. Set a smaller cluster.num_cpus."
    )
    elsewhere = replace(plan, config=replace(plan.config, cluster=replace(plan.config.cluster, address="auto")))
    assert len(placement_lines(elsewhere, 10**9)) == 2


def test_the_picture_is_a_png(tmp_path: Path):
    plan = make_plan(config("method.name=local", "placement.pool=inline", "population.num_clients=4"))
    save_picture(plan, tmp_path / "partition.png")
    assert (tmp_path / "partition.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be written"):
        save_picture(plan, tmp_path / "partition.png" / "inside.png")
