import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import WAIT, Packing, Resources, actor_needs, num_wanted, pack, slots


def fit(num_clients, *, num_cpus=4.0, num_gpus=0.0, **placement):
    config = PlacementConfig(**placement)
    needs = actor_needs(config, has_gpus=num_gpus > 0)
    return pack(config, num_clients, needs, [Resources(num_cpus, num_gpus)], "this machine")


def test_auto_gives_each_client_an_actor_while_slots_are_free():
    assert fit(3) == Packing(num_actors=3, clients_per_actor=1, num_slots=4)
    assert fit(4) == Packing(num_actors=4, clients_per_actor=1, num_slots=4)


def test_auto_fills_actors_with_any_number_of_clients_beyond_the_slots():
    assert fit(9) == Packing(num_actors=4, clients_per_actor=9, num_slots=4)
    assert fit(200, cpus_per_actor=2.0) == Packing(num_actors=2, clients_per_actor=200, num_slots=2)


def test_a_fixed_number_of_clients_determines_the_number_of_actors():
    assert fit(9, clients_per_actor=3) == Packing(num_actors=3, clients_per_actor=3, num_slots=4)
    # Three actors for seven clients are filled to 3, not to 3, 3 and 1.
    assert fit(7, clients_per_actor=3).num_actors == 3
    assert fit(2, clients_per_actor=50) == Packing(num_actors=1, clients_per_actor=2, num_slots=4)


# Free CPUs may be fractions: 0.3 / 0.1 is 2.9999999999999996.
@pytest.mark.parametrize(
    ("supply", "need", "num_slots"), [(1.0, 0.05, 20), (1.0, 0.3, 3), (0.3, 0.1, 3), (0.6, 0.2, 3)]
)
def test_fractions_fill_a_machine_to_the_last_slot(supply, need, num_slots):
    assert fit(1000, num_cpus=supply, cpus_per_actor=need).num_slots == num_slots


def test_the_scarcer_of_cpus_and_gpus_decides():
    assert fit(9, num_cpus=16.0, num_gpus=1.0, gpus_per_actor=0.25).num_slots == 4
    assert fit(9, num_cpus=2.0, num_gpus=1.0, gpus_per_actor=0.25).num_slots == 2


@pytest.mark.parametrize(
    ("num_clients", "keys"),
    [
        (40, {"num_cpus": 2.0, "clients_per_actor": 1}),
        (3, {"num_cpus": 2.0, "cpus_per_actor": 4.0}),
        (8, {"num_cpus": 8.0, "num_gpus": 1.0, "gpus_per_actor": 0.25, "clients_per_actor": 1}),
    ],
    ids=["many actors", "large actor", "gpus"],
)
def test_actors_that_do_not_fit_are_refused_with_settings_that_fit(golden, keys_of, num_clients, keys):
    with pytest.raises(ClusterError) as raised:
        fit(num_clients, **keys)
    assert keys_of(raised.value) == ["placement"]
    golden(raised.value)


@given(num_clients=st.integers(1, 300), num_cpus=st.integers(1, 64), per_actor=st.integers(1, 300))
def test_every_packing_takes_all_clients_and_fits_the_machine(num_clients, num_cpus, per_actor):
    packing = fit(num_clients, num_cpus=float(num_cpus))
    assert packing.num_actors <= min(num_cpus, num_clients)
    assert packing.num_actors * packing.clients_per_actor >= num_clients
    fixed = fit(num_clients, num_cpus=1000.0, clients_per_actor=per_actor)
    assert fixed.clients_per_actor <= per_actor
    assert fixed.num_actors * fixed.clients_per_actor >= num_clients


def on(nodes, num_clients=8, **placement):
    config = PlacementConfig(**placement)
    needs = actor_needs(config, has_gpus=any(node.num_gpus for node in nodes))
    return pack(config, num_clients, needs, nodes, "it")


def test_slots_are_counted_node_by_node():
    # A node of 3 CPUs has one slot of 2 CPUs, and the CPU that is left over is no half slot.
    assert on([Resources(3.0), Resources(3.0)], cpus_per_actor=2.0).num_slots == 2
    assert on([Resources(3.0, 0.0, 5e9), Resources(3.0, 0.0, 1e9)], memory_bytes_per_actor=2 * 10**9).num_slots == 2
    assert on([Resources(8.0, 2.0), Resources(2.0, 1.0)], gpus_per_actor=1 / 3).num_slots == 8
    # Halves of two GPUs are no whole GPU.
    assert slots(Resources(1.0, 1.0), Resources(8.0, 1.5)) == 1
    assert slots(Resources(1.0, 0.5), Resources(8.0, 1.6)) == 3
    assert slots(Resources(1.0, 0.335), Resources(8.0, 2.0)) == 4


@pytest.mark.parametrize(
    ("placement", "has_gpus", "num_gpus"),
    [
        ({}, False, 0.0),
        ({}, True, 1.0),
        ({"accelerator": "cpu"}, True, 0.0),
        ({"accelerator": "cuda"}, False, 1.0),
        ({"gpus_per_actor": 0.25}, True, 0.25),
        ({"gpus_per_actor": 0.25, "accelerator": "cpu"}, True, 0.0),
        ({"gpus_per_actor": 0.0}, True, 0.0),
    ],
)
def test_an_actor_reserves_a_gpu_if_a_node_has_one_or_the_config_asks_for_one(placement, has_gpus, num_gpus):
    assert actor_needs(PlacementConfig(**placement), has_gpus=has_gpus).num_gpus == num_gpus


def test_max_actors_limits_auto_only():
    assert on([Resources(16.0)], max_actors=3) == Packing(3, 8, 16)
    assert num_wanted(PlacementConfig(max_actors=3), 2) == 2
    assert num_wanted(PlacementConfig(clients_per_actor=3, max_actors=1), 7) == 3


def test_a_run_that_waits_for_the_minimum_starts_with_one_actor():
    assert on([Resources(2.0)], clients_per_actor=2, wait="min") == Packing(2, 4, 2)
    with pytest.raises(ClusterError):
        on([Resources(0.0)], clients_per_actor=2, wait="min")


@pytest.mark.parametrize(
    ("placement", "total", "num_actors"),
    [
        ({"clients_per_actor": 1}, 4.0, 8),
        ({}, 4.0, 4),
        ({"max_actors": 3}, 4.0, 3),
        ({"max_actors": 3}, 0.0, 3),
        ({}, 0.0, 1),
        ({"wait": "min"}, 4.0, 1),
    ],
)
def test_number_of_actors_of_a_run_that_may_wait(placement, total, num_actors):
    config = PlacementConfig(wait_timeout_s=9.0, **placement)
    packing = pack(config, 8, Resources(1.0), [Resources(0.0)], "it", total=[Resources(total)])
    assert (packing.num_actors, packing.num_slots) == (num_actors, 0)
    assert packing.num_actors * packing.clients_per_actor >= 8


@pytest.mark.parametrize(
    ("placement", "nodes"),
    [
        ({"cpus_per_actor": 2.0, "clients_per_actor": 4}, [Resources(3.0), Resources(1.0)]),
        ({"cpus_per_actor": 4.0}, [Resources(3.0), Resources(2.0)]),
        ({"memory_bytes_per_actor": 4 * 10**9, "clients_per_actor": 4}, [Resources(8.0, 0.0, 6e9)]),
        ({"accelerator": "cuda"}, [Resources(8.0)]),
        ({}, [Resources(0.0)]),
    ],
    ids=["slots", "node", "memory", "gpu", "no CPU"],
)
def test_actors_that_do_not_fit_on_nodes_are_refused_with_settings_that_fit(golden, keys_of, placement, nodes):
    with pytest.raises(ClusterError) as raised:
        on(nodes, **placement)
    assert keys_of(raised.value) == ["placement"]
    golden(raised.value)


@pytest.mark.parametrize(
    ("placement", "nodes"),
    [
        # A head without CPUs, before its workers have joined: `auto` would find no slot either.
        ({}, [Resources(0.0)]),
        ({"clients_per_actor": 1}, [Resources(0.0)]),
        ({"clients_per_actor": 4, "cpus_per_actor": 2.0}, [Resources(3.0)]),
        ({"cpus_per_actor": 4.0}, [Resources(3.0), Resources(2.0)]),
    ],
    ids=["auto", "fixed", "actors", "node"],
)
def test_if_nodes_may_join_the_message_names_the_setting_that_waits(golden, placement, nodes):
    config, messages = PlacementConfig(**placement), []
    for may_grow in (False, True):
        with pytest.raises(ClusterError) as raised:
            pack(config, 8, Resources(config.cpus_per_actor), nodes, "it", may_grow=may_grow)
        messages.append(str(raised.value))

    assert messages[1].startswith(f"{messages[0]} ")
    assert WAIT in messages[1].removeprefix(messages[0])
    golden(messages[1])
    waiting = PlacementConfig(**placement, wait_timeout_s=600.0)
    assert pack(waiting, 8, Resources(config.cpus_per_actor), nodes, "it", may_grow=True).num_actors >= 1


def test_if_other_runs_use_the_slots_the_message_names_the_setting_that_waits(golden):
    with pytest.raises(ClusterError) as raised:
        pack(PlacementConfig(), 8, Resources(1.0), [Resources(0.0)], "it", total=[Resources(2.0)])
    assert WAIT in str(raised.value)
    golden(raised.value)


NODES = st.lists(st.builds(Resources, st.integers(0, 9).map(float)), min_size=1, max_size=5)


@given(NODES, st.integers(1, 30), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), st.integers(1, 30))
def test_the_settings_that_a_message_names_fit(nodes, num_clients, cpus_per_actor, per_actor):
    keys = {"cpus_per_actor": cpus_per_actor, "clients_per_actor": per_actor}
    try:
        packing = on(nodes, num_clients, **keys)
    except ClusterError as error:
        for key, value in re.findall(r"placement\.(\w+)=([\w.]*\w)", str(error)):
            wanted = PlacementConfig(**(keys | {key: value if value == "auto" else float(value)}))
            pack(wanted, num_clients, Resources(wanted.cpus_per_actor), nodes, "it")
    else:
        assert packing.num_actors <= sum(math.floor(node.num_cpus / cpus_per_actor) for node in nodes)
