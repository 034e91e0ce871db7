import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedvtc.commands.plan.plan import ACTOR_BYTES, make_plan, nodes_of, pack_clients
from fedvtc.commands.plan.printing import placement_lines, save_picture
from fedvtc.config import Config, load
from fedvtc.errors import ClusterError, UserError
from fedvtc.learning.methods import config_classes
from fedvtc.runtime.placement import Packing, Resources


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def config(*overrides: str) -> Config:
    return load([], overrides, methods=config_classes())


def packed(overrides: list[str], cpus: int, gpus: int) -> Packing:
    nodes = [Resources(float(cpus), float(gpus))]
    return pack_clients(config(*overrides), nodes, nodes, "this machine")[1]


@pytest.mark.parametrize(
    ("overrides", "cpus", "gpus", "packing"),
    [
        (["population.num_clients=40"], 2, 0, Packing(2, 40, 2)),
        (["population.num_clients=3"], 8, 0, Packing(3, 1, 8)),
        (["population.num_clients=7"], 3, 0, Packing(3, 7, 3)),
        (["population.num_clients=40", "placement.cpus_per_actor=0.05"], 2, 0, Packing(40, 1, 40)),
        (["population.num_clients=40", "placement.clients_per_actor=20"], 2, 0, Packing(2, 20, 2)),
        (["population.num_clients=8", "placement.gpus_per_actor=0.25"], 16, 1, Packing(4, 8, 4)),
        (["population.num_clients=8", "placement.gpus_per_actor=1"], 16, 2, Packing(2, 8, 2)),
        (["population.num_clients=8", "placement.pool=inline"], 1, 0, Packing(0, 8, 1)),
    ],
)
def test_packing(overrides: list[str], cpus: int, gpus: int, packing: Packing):
    assert packed(overrides, cpus, gpus) == packing


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
        packed(overrides, cpus, gpus)
    assert str(caught.value) == line
    assert caught.value.args
    fix = line.rpartition("=")[2].rstrip(".")
    key = line.rpartition("=")[0].rpartition(" ")[2]
    packed([*overrides, f"{key}={fix}"], cpus, gpus)


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


def test_a_cluster_that_starts_here_has_what_the_config_says():
    (node,), total = nodes_of(config("cluster.num_cpus=16", "cluster.num_gpus=2"))
    assert total == [node]
    assert (node.num_cpus, node.num_gpus) == (16.0, 2.0)
    assert 5e8 < node.memory_bytes < 1e13
    _, packing = pack_clients(config("placement.clients_per_actor=1"), [], [], "it")
    assert packing == Packing(8, 1, 8)
    # Three of them lie on a GPU, and none on two.
    _, packing = pack_clients(config("placement.clients_per_actor=1", "placement.gpus_per_actor=0.33"), [], [], "it")
    assert packing == Packing(8, 1, 8)


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_a_plan_for_an_address_of_no_node_says_what_a_run_would(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=rf"^RAY_ADDRESS={address}: is .*Set HOST:6379 on a node of the cluster"):
        make_plan(config())
    # That run starts no actors, and looks at no address.
    make_plan(config("placement.pool=inline", "method.name=local", "population.num_clients=2"))


def test_an_actor_reserves_a_gpu_where_all_of_them_are_taken_as_in_a_run():
    free, total = [Resources(4.0, 0.0)], [Resources(4.0, 1.0)]
    needs, _ = pack_clients(config("placement.wait_timeout_s=60"), free, total, "it")
    assert needs.num_gpus == 1
    with pytest.raises(ClusterError, match="1 actor x 1 GPU needs 1 GPU; it has 0"):
        pack_clients(config(), free, total, "it")


def test_a_plan_for_a_cluster_whose_nodes_are_still_to_come_says_how_to_wait():
    head = [Resources(0.0)]
    wait = r"has 0\. Where nodes are still to come, placement\.wait_timeout_s=600 waits for them\.$"
    with pytest.raises(ClusterError, match=wait):
        pack_clients(config("cluster.address=auto"), head, head, "it")
    with pytest.raises(ClusterError, match=r"has 0\.$"):
        pack_clients(config(), head, head, "it")


def test_placement_work_and_memory_in_words():
    small = ["method.name=local", "population.backbones=[{name: cnn_2x8, share: 1}]", "partition.kind=iid"]
    plan = make_plan(config(*small, "cluster.num_cpus=4", "placement.accelerator=cpu"))
    placement, work, memory = placement_lines(plan, 16 * 10**9)
    assert placement == "Placement: 8 clients in 4 actors of 1 CPU, up to 2 in one; this machine has slots for 4."
    assert re.fullmatch(r"Work: on CPUs; the busiest actor has 1\.0\d times the mean of all, counted as .*", work)
    assert memory.startswith("Memory: about 2.5 GB in all")
    assert placement_lines(plan, 10**9)[3] == (
        "Memory: 2.5 GB do not fit, this machine has 1.0 GB. Set a smaller cluster.num_cpus."
    )
    elsewhere = replace(plan.config, cluster=replace(plan.config.cluster, address="auto"))
    nodes = [Resources(3.0), Resources(1.0), Resources(3.0), Resources(0.0)]
    _, packing = pack_clients(elsewhere, nodes, nodes, "it")
    lines = placement_lines(replace(plan, config=elsewhere, free=nodes, packing=packing), 10**9)
    assert len(lines) == 3
    assert lines[0].endswith("; the cluster has slots for 7 now: 3 on each of 2 nodes, 1 on 1 node, 0 on 1 node.")
    assert placement_lines(replace(plan, config=elsewhere, free=[]), 10**9)[0].endswith("for no cluster answers.")


def test_the_picture_is_a_png(tmp_path: Path):
    plan = make_plan(config("method.name=local", "placement.pool=inline", "population.num_clients=4"))
    for name in ("partition.png", "partition.xyz", "partition"):
        assert save_picture(plan, tmp_path / name) == tmp_path / name
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be written"):
        save_picture(plan, tmp_path / "partition.png" / "inside.png")
