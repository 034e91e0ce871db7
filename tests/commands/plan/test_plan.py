"""Plans of small configs: packing, bytes, memory, and what a plan prints."""

import re
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedvtc.commands.plan.data import data_lines
from fedvtc.commands.plan.footprint import LIBRARIES_BYTES, PROCESS_BYTES
from fedvtc.commands.plan.limits import disk_lines, memory_lines
from fedvtc.commands.plan.nodes import nodes_of, pack_clients
from fedvtc.commands.plan.plan import make_plan
from fedvtc.commands.plan.printing import (
    _narrowed,
    _payload_table,
    message_lines,
    placement_lines,
    print_plan,
    save_picture,
)
from fedvtc.config import Config, load
from fedvtc.config.schema import DataConfig
from fedvtc.errors import ClusterError, UserError
from fedvtc.learning.data import DataReport, load_dataset
from fedvtc.learning.methods import config_classes
from fedvtc.learning.methods.fedvtc.generator import VTCModule
from fedvtc.learning.models import parameter_count
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
    ("overrides", "cpus", "gpus", "fix"),
    [
        (
            ["population.num_clients=40", "placement.clients_per_actor=1"],
            2,
            0,
            ["placement.clients_per_actor=auto", "placement.cpus_per_actor=0.05"],
        ),
        (["placement.cpus_per_actor=3"], 2, 0, ["placement.cpus_per_actor=2"]),
        (["placement.gpus_per_actor=0.25"], 2, 0, ["placement.gpus_per_actor=0"]),
        (
            ["population.num_clients=3", "placement.clients_per_actor=1", "placement.gpus_per_actor=1"],
            8,
            1,
            ["placement.clients_per_actor=auto", "placement.gpus_per_actor=0.3333"],
        ),
        (
            ["population.num_clients=7", "placement.clients_per_actor=1", "placement.gpus_per_actor=1"],
            8,
            2,
            ["placement.clients_per_actor=auto", "placement.gpus_per_actor=0.25"],
        ),
    ],
    ids=["40 actors", "3 CPUs", "no GPU", "3 on 1 GPU", "7 on 2 GPUs"],
)
def test_actors_that_do_not_fit_are_refused_with_settings_that_fit(
    overrides: list[str], cpus: int, gpus: int, fix: list[str], keys_of, golden
):
    with pytest.raises(ClusterError) as caught:
        packed(overrides, cpus, gpus)
    assert keys_of(caught.value) == ["placement"]
    assert re.findall(r"placement\.\w+=[\w.]*\w", str(caught.value)) == fix
    golden(caught.value)
    for setting in fix:
        packed([*overrides, setting], cpus, gpus)


def test_a_plan_of_the_digits():
    plan = make_plan(config("population.num_clients=4", "placement.pool=inline", "population.feature_size=8"))
    counts_KC = plan.population.class_counts_KC
    assert counts_KC.shape == (4, 10)
    assert plan.population.dataset.class_names == tuple("0123456789")
    assert sorted(plan.backbones) == ["cnn_2x16", "cnn_3x32", "resnet8", "vit_tiny"]
    # Every training image has one client.
    assert 1000 < counts_KC.sum() == len(plan.population.dataset.train.labels_N) < 1797
    assert plan.dataset_bytes == 1797 * 64
    assert plan.memory.images == plan.dataset_bytes + 4 * 64 * counts_KC.sum()
    assert plan.memory.processes == PROCESS_BYTES + LIBRARIES_BYTES
    # Weights, gradients and two moments of Adam, of the classifiers and of at least one layer of each generator.
    weights = sum(client.parameters for client in plan.clients.values())
    assert 16 * (weights + 4 * 8 * 64) < plan.memory.models < 32 * weights
    # With a limit, the states of idle clients within the limit and the largest state of a client at work.
    limited = replace(plan, config=config("placement.pool=inline", "placement.client_bytes_per_actor=1000"))
    without = replace(plan, config=config("placement.pool=inline", "placement.image_bytes_per_actor=0"))
    assert without.memory.images == plan.dataset_bytes
    largest = max(client.state for client in plan.clients.values())
    server_bytes = plan.memory.models - sum(client.state for client in plan.clients.values())
    assert limited.memory.models == 1000 + largest + server_bytes
    up = plan.payload_bytes["up"]
    # 10 classes of 8 float32 features at the least.
    assert up["prototypes"] >= 10 * 8 * 4


def test_lines_on_the_data(golden):
    digits = load_dataset(DataConfig())
    golden("\n".join(data_lines(DataReport.of(digits))))
    names = tuple(f"class {number}" for number in range(20))
    train = replace(digits.train, labels_N=digits.train.labels_N + 10)
    many = replace(digits, train=train, num_classes=20, class_names=names, notes=("passed over 1 file",))
    golden("\n".join(data_lines(DataReport.of(many))))
    even = replace(DataReport.of(many), train_counts_C=np.full(20, 60), test_counts_C=np.full(20, 1000))
    assert data_lines(even)[1] == "Data: 60 training images and 1,000 test images by class."


def test_the_parameters_include_the_head():
    def parameters(num_features: int) -> int:
        overrides = [f"population.feature_size={num_features}", "population.backbones=[{name: cnn_2x8, share: 1}]"]
        return make_plan(config("method.name=local", "placement.pool=inline", *overrides)).clients["cnn_2x8"].parameters

    # The layer before the features is linear: each feature adds its input weights, its bias and 10 weights of the head.
    step = parameters(9) - parameters(8)
    assert parameters(11) - parameters(9) == 2 * step
    assert step > 10


def test_a_local_cluster_has_the_resources_of_the_config():
    (node,), total = nodes_of(config("cluster.num_cpus=16", "cluster.num_gpus=2"))
    assert total == [node]
    assert (node.num_cpus, node.num_gpus) == (16.0, 2.0)
    assert 5e8 < node.memory_bytes < 1e13
    _, packing = pack_clients(config("placement.clients_per_actor=1"), [], [], "it")
    assert packing == Packing(8, 1, 8)
    # Three actors share a GPU; no actor spans two.
    _, packing = pack_clients(config("placement.clients_per_actor=1", "placement.gpus_per_actor=0.33"), [], [], "it")
    assert packing == Packing(8, 1, 8)


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_an_address_that_is_not_a_node_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError) as caught:
        make_plan(config())
    assert str(caught.value).startswith(f"RAY_ADDRESS={address}: ")
    assert "HOST:6379" in str(caught.value)
    # A run with the inline pool starts no actors and reads no address.
    make_plan(config("placement.pool=inline", "method.name=local", "population.num_clients=2"))


def test_an_actor_reserves_a_gpu_even_if_all_gpus_are_taken():
    free, total = [Resources(4.0, 0.0)], [Resources(4.0, 1.0)]
    needs, _ = pack_clients(config("placement.wait_timeout_s=60"), free, total, "it")
    assert needs.num_gpus == 1
    with pytest.raises(ClusterError) as caught:
        pack_clients(config(), free, total, "it")
    assert "1 actor x 1 GPU" in str(caught.value)


def test_a_cluster_without_nodes_yet_suggests_to_wait():
    head = [Resources(0.0)]
    wait = "placement.wait_timeout_s=600"
    with pytest.raises(ClusterError) as elsewhere:
        pack_clients(config("cluster.address=auto"), head, head, "it")
    with pytest.raises(ClusterError) as here:
        pack_clients(config(), head, head, "it")
    assert wait in str(elsewhere.value)
    assert wait not in str(here.value)


def test_lines_on_placement_work_and_memory(golden):
    small = ["method.name=local", "population.backbones=[{name: cnn_2x8, share: 1}]", "partition.kind=iid"]
    plan = make_plan(config(*small, "cluster.num_cpus=4", "placement.accelerator=cpu"))
    lines = [*placement_lines(plan), *memory_lines(plan, 16e9)]
    assert [line.partition(":")[0] for line in lines] == ["Placement", "Work", "Memory"]
    # 8 clients, 4 actors, 1 CPU each, 2 clients per actor, 4 slots.
    assert re.findall(r"\d+", lines[0]) == ["8", "4", "1", "2", "4"]
    assert re.search(r" 1\.0\d times", lines[1])
    # Five processes of 500 MB, and the libraries.
    assert "2.9 GB" in lines[2]
    golden("\n".join(lines))
    for free_bytes, fix in (
        (1.9e9, "cluster.num_cpus=2 "),
        (1e9, "placement.pool=inline"),
        (5e8, "more memory"),
    ):
        first, too_small = memory_lines(plan, free_bytes)
        assert first == lines[2]
        assert fix in too_small
        golden(too_small)


def test_slots_of_a_cluster_are_counted_by_node(golden):
    small = ["method.name=local", "population.backbones=[{name: cnn_2x8, share: 1}]", "placement.accelerator=cpu"]
    plan = make_plan(config(*small, "cluster.num_cpus=4"))
    elsewhere = replace(plan.config, cluster=replace(plan.config.cluster, address="auto"))
    nodes = [Resources(3.0), Resources(1.0), Resources(3.0), Resources(0.0)]
    needs, packing = pack_clients(elsewhere, nodes, nodes, "it")
    plan = replace(plan, config=elsewhere, needs=needs, free=nodes, packing=packing)
    first, work = placement_lines(plan)
    assert work.startswith("Work: ")
    assert re.findall(r"\d+", first.rpartition("; ")[2]) == ["7", "3", "2", "1", "1", "0", "1"]
    golden(first)
    golden(placement_lines(replace(plan, free=[]))[0])


def test_nodes_of_a_cluster_with_too_little_memory_are_named(golden):
    small = ["method.name=local", "population.backbones=[{name: cnn_2x8, share: 1}]", "placement.accelerator=cpu"]
    plan = make_plan(config(*small, "cluster.num_cpus=4"))
    elsewhere = replace(plan.config, cluster=replace(plan.config.cluster, address="auto"))
    nodes = [Resources(4.0, memory_bytes=20e9), Resources(4.0, memory_bytes=1e9), Resources(0.0, memory_bytes=1e8)]
    # The memory of this machine does not matter.
    _, line = memory_lines(replace(plan, config=elsewhere, total=nodes), 1e6)
    assert "1.4 GB" in line
    assert f"placement.memory_bytes_per_actor={plan.memory.actor}" in line
    golden(line, {str(plan.memory.actor): "BYTES"})


def test_checkpoints_that_the_disk_cannot_hold_are_said(tmp_path: Path, monkeypatch, golden):
    overrides = ["method.name=local", "placement.pool=inline", f"run.output_dir={tmp_path}/not/yet", "run.rounds=5"]
    plan = make_plan(config(*overrides))
    free = namedtuple("free", "free")
    size = plan.checkpoint_bytes
    for num_free, num_lines in ((4 * size, 1), (3 * size, 2), (size, 2)):
        monkeypatch.setattr("shutil.disk_usage", lambda place, num_free=num_free: free(num_free))
        lines = disk_lines(plan)
        assert len(lines) == num_lines
        assert ("checkpoint.keep_best=false" in lines[-1]) == (num_free == 3 * size)
        golden("\n".join(lines))
    for key in ("checkpoint.every=null", "checkpoint.dir=s3://bucket/x"):
        (line,) = disk_lines(replace(plan, config=config(*overrides, key)))
        golden(line)


def test_a_plan_knows_the_size_of_a_checkpoint_and_of_its_steps():
    small = ["population.num_clients=2", "placement.pool=inline", "population.backbones=[{name: cnn_2x8, share: 1}]"]
    plan, wide = make_plan(config(*small)), make_plan(config(*small, "method.generator.dm_samples=64"))
    client = plan.clients["cnn_2x8"]
    generator = VTCModule(feature_size=64, num_channels=1, image_size=8)
    num_weights = client.parameters + parameter_count(generator)
    # The classifier, the generator and the moments of their optimizers.
    assert client.saved == 12 * num_weights
    assert client.state == 16 * num_weights
    assert plan.checkpoint_bytes == 2 * client.saved + sum(plan.payload_bytes["down"].values())
    # 640 images with gradients instead of 20, and 32 more of the reconstruction.
    step = wide.clients["cnn_2x8"].working["method.generator.dm_samples"]
    assert step == pytest.approx(client.working["method.generator.dm_samples"] * 672 / 52, rel=0.25)
    assert wide.memory.largest_step == "method.generator.dm_samples"
    assert wide.memory.steps > 2 * plan.memory.steps
    (line,) = memory_lines(wide, None)
    assert "method.generator.dm_samples" in line
    free_bytes = wide.memory.total - wide.memory.steps / 2
    assert memory_lines(wide, free_bytes)[1].endswith("Set a smaller method.generator.dm_samples.")


def test_messages_of_a_method_that_cannot_count_them_are_unknown(tmp_path: Path, monkeypatch, golden):
    head = "from fedvtc.learning.methods.local import Local\n\n\n"
    source = f"{head}class Mine(Local):\n    sends_in_rounds = True\n"
    (tmp_path / "plan_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["population.num_clients=2", "placement.pool=inline", "population.backbones=[{name: cnn_2x8, share: 1}]"]
    with (console := Console(width=120)).capture() as captured:
        print_plan(make_plan(config("method.name=plan_mine:Mine", *small)), console)
    rows = [row for row in captured.get().splitlines() if "unknown" in row]
    assert [row.count("unknown") for row in rows] == [6, 6, 1]
    golden(rows[-1])
    # No message is a known size.
    assert message_lines(make_plan(config("method.name=local", *small))) == []


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_bytes_cuts_no_word_and_no_number(width: int):
    table = _payload_table(make_plan(config("placement.pool=inline", "population.num_clients=2")))
    with (console := Console(width=width, color_system=None)).capture() as captured:
        console.print(_narrowed(table, console))
    text = captured.get()
    assert "\u2026" not in text
    assert {"prototypes", "covariance", "generator"} <= set(text.split())
    rows = [re.findall(r"[\d.]+ k?M?B", row) for row in text.splitlines()]
    assert [len(sizes) for sizes in rows if sizes] == [6] * 5
    assert max(map(len, text.splitlines())) <= width


def test_the_picture_is_a_png(tmp_path: Path, keys_of, golden):
    plan = make_plan(config("method.name=local", "placement.pool=inline", "population.num_clients=4"))
    for name in ("partition.png", "partition.xyz", "partition"):
        save_picture(plan, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    inside_a_file = tmp_path / "partition.png" / "inside.png"
    with pytest.raises(UserError) as caught:
        save_picture(plan, inside_a_file)
    assert keys_of(caught.value) == [str(inside_a_file)]
    golden(caught.value)
