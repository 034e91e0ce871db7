import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.config.operation import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import Packing, Resources, actor_needs, num_wanted, pack, slots


def fit(num_clients, *, num_cpus=4.0, num_gpus=0.0, **placement):
    config = PlacementConfig(**placement)
    needs = actor_needs(config, has_gpus=num_gpus > 0)
    return pack(config, num_clients, needs, [Resources(num_cpus, num_gpus)], "this machine")


def test_auto_gives_every_client_an_actor_while_there_are_slots():
    assert fit(3) == Packing(num_actors=3, clients_per_actor=1, num_slots=4)
    assert fit(4) == Packing(num_actors=4, clients_per_actor=1, num_slots=4)


def test_auto_lets_actors_take_any_number_of_clients_beyond_that():
    assert fit(9) == Packing(num_actors=4, clients_per_actor=9, num_slots=4)
    assert fit(200, cpus_per_actor=2.0) == Packing(num_actors=2, clients_per_actor=200, num_slots=2)


def test_a_number_of_clients_decides_the_actors():
    assert fit(9, clients_per_actor=3) == Packing(num_actors=3, clients_per_actor=3, num_slots=4)
    # Three actors for seven clients are filled to 3, not to 3, 3 and 1.
    assert fit(7, clients_per_actor=3).num_actors == 3
    assert fit(2, clients_per_actor=50) == Packing(num_actors=1, clients_per_actor=2, num_slots=4)


# Free CPUs need not be whole: 0.3 / 0.1 is 2.9999999999999996.
@pytest.mark.parametrize(
    ("supply", "need", "num_slots"), [(1.0, 0.05, 20), (1.0, 0.3, 3), (0.3, 0.1, 3), (0.6, 0.2, 3)]
)
def test_fractions_fill_a_machine_to_the_last_slot(supply, need, num_slots):
    assert fit(1000, num_cpus=supply, cpus_per_actor=need).num_slots == num_slots


def test_the_scarcer_of_cpus_and_gpus_decides():
    assert fit(9, num_cpus=16.0, num_gpus=1.0, gpus_per_actor=0.25).num_slots == 4
    assert fit(9, num_cpus=2.0, num_gpus=1.0, gpus_per_actor=0.25).num_slots == 2


@pytest.mark.parametrize(
    ("num_clients", "keys", "message"),
    [
        (
            40,
            {"num_cpus": 2.0, "clients_per_actor": 1},
            "placement: 40 actors x 1 CPU need 40 CPUs; this machine has 2. "
            "Set placement.clients_per_actor=auto or placement.cpus_per_actor=0.05.",
        ),
        (
            3,
            {"num_cpus": 2.0, "cpus_per_actor": 4.0},
            "placement: 1 actor x 4 CPU needs 4 CPUs; this machine has 2. Set placement.cpus_per_actor=2.",
        ),
        (
            8,
            {"num_cpus": 8.0, "num_gpus": 1.0, "gpus_per_actor": 0.25, "clients_per_actor": 1},
            "placement: 8 actors x 0.25 GPU need 2 GPUs; this machine has 1. "
            "Set placement.clients_per_actor=auto or placement.gpus_per_actor=0.125.",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(num_clients, keys, message):
    with pytest.raises(ClusterError) as caught:
        fit(num_clients, **keys)
    assert str(caught.value) == message


@given(num_clients=st.integers(1, 300), num_cpus=st.integers(1, 64), per_actor=st.integers(1, 300))
def test_every_packing_has_room_for_all_and_fits_the_machine(num_clients, num_cpus, per_actor):
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
    # A node of 3 CPUs has room for one actor of 2, and not for half of a second one.
    assert on([Resources(3.0), Resources(3.0)], cpus_per_actor=2.0).num_slots == 2
    assert on([Resources(3.0, 0.0, 5e9), Resources(3.0, 0.0, 1e9)], memory_bytes_per_actor=2 * 10**9).num_slots == 2
    assert on([Resources(8.0, 2.0), Resources(2.0, 1.0)], gpus_per_actor=1 / 3).num_slots == 8
    # Half of each of two GPUs is no whole one.
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
        ({"gpus_per_actor": 0.0}, True, 0.0),
    ],
)
def test_an_actor_has_a_gpu_where_there_are_any_or_where_it_is_asked_for(placement, has_gpus, num_gpus):
    assert actor_needs(PlacementConfig(**placement), has_gpus=has_gpus).num_gpus == num_gpus


def test_most_actors_of_auto():
    assert on([Resources(16.0)], max_actors=3) == Packing(3, 8, 16)
    assert num_wanted(PlacementConfig(max_actors=3), 2) == 2
    assert num_wanted(PlacementConfig(clients_per_actor=3, max_actors=1), 7) == 3


def test_the_least_is_one_actor_where_the_rest_may_come_later():
    assert on([Resources(2.0)], clients_per_actor=2, wait="min") == Packing(2, 4, 2)
    with pytest.raises(ClusterError, match=r"1 actor x 1 CPU needs 1 CPU; it has 0"):
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
def test_what_a_run_that_may_wait_asks_for(placement, total, num_actors):
    config = PlacementConfig(wait_timeout_s=9.0, **placement)
    packing = pack(config, 8, Resources(1.0), [Resources(0.0)], "it", total=[Resources(total)])
    assert (packing.num_actors, packing.num_slots) == (num_actors, 0)
    assert packing.num_actors * packing.clients_per_actor >= 8


@pytest.mark.parametrize(
    ("placement", "nodes", "line"),
    [
        (
            {"cpus_per_actor": 2.0, "clients_per_actor": 4},
            [Resources(3.0), Resources(1.0)],
            "2 actors x 2 CPU do not fit; counted node by node, it has room for 1. "
            "Set placement.clients_per_actor=auto or placement.cpus_per_actor=1.5.",
        ),
        (
            {"cpus_per_actor": 4.0},
            [Resources(3.0), Resources(2.0)],
            "no node of it is big enough for one actor of 4 CPU. Set placement.cpus_per_actor=3.",
        ),
        (
            {"memory_bytes_per_actor": 4 * 10**9, "clients_per_actor": 4},
            [Resources(8.0, 0.0, 6e9)],
            "2 actors x 4 GB need 8 GB of memory; it has 6. "
            "Set placement.clients_per_actor=auto or placement.memory_bytes_per_actor=3000000000.",
        ),
        (
            {"accelerator": "cuda"},
            [Resources(8.0)],
            "1 actor x 1 GPU needs 1 GPU; it has 0. Set placement.accelerator=cpu.",
        ),
        ({}, [Resources(0.0)], "1 actor x 1 CPU needs 1 CPU; it has 0."),
    ],
)
def test_what_does_not_fit_on_nodes_is_said_with_what_would(placement, nodes, line):
    with pytest.raises(ClusterError) as caught:
        on(nodes, **placement)
    assert str(caught.value) == f"placement: {line}"


@pytest.mark.parametrize(
    ("placement", "nodes", "line"),
    [
        # A head without CPUs, before its workers are there: `auto` would find no slot either.
        ({}, [Resources(0.0)], "1 actor x 1 CPU needs 1 CPU; it has 0."),
        ({"clients_per_actor": 1}, [Resources(0.0)], "8 actors x 1 CPU need 8 CPUs; it has 0."),
        (
            {"clients_per_actor": 4, "cpus_per_actor": 2.0},
            [Resources(3.0)],
            "2 actors x 2 CPU need 4 CPUs; it has 3. "
            "Set placement.clients_per_actor=auto or placement.cpus_per_actor=1.5.",
        ),
        (
            {"cpus_per_actor": 4.0},
            [Resources(3.0), Resources(2.0)],
            "no node of it is big enough for one actor of 4 CPU. Set placement.cpus_per_actor=3.",
        ),
    ],
)
def test_where_nodes_may_come_it_is_said_how_to_wait_for_them(placement, nodes, line):
    config, said = PlacementConfig(**placement), []
    for may_grow in (False, True):
        with pytest.raises(ClusterError) as caught:
            pack(config, 8, Resources(config.cpus_per_actor), nodes, "it", may_grow=may_grow)
        said.append(str(caught.value))

    more = "Where nodes are still to come, placement.wait_timeout_s=600 waits for them."
    assert said == [f"placement: {line}", f"placement: {line} {more}"]
    waiting = PlacementConfig(**placement, wait_timeout_s=600.0)
    assert pack(waiting, 8, Resources(config.cpus_per_actor), nodes, "it", may_grow=True).num_actors >= 1


def test_what_others_have_can_be_waited_for():
    with pytest.raises(ClusterError, match=r"Other runs have it; placement\.wait_timeout_s=600 waits\.$"):
        pack(PlacementConfig(), 8, Resources(1.0), [Resources(0.0)], "it", total=[Resources(2.0)])


NODES = st.lists(st.builds(Resources, st.integers(0, 9).map(float)), min_size=1, max_size=5)


@given(NODES, st.integers(1, 30), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), st.integers(1, 30))
def test_what_is_advised_fits(nodes, num_clients, cpus_per_actor, per_actor):
    keys = {"cpus_per_actor": cpus_per_actor, "clients_per_actor": per_actor}
    try:
        packing = on(nodes, num_clients, **keys)
    except ClusterError as error:
        for key, value in re.findall(r"placement\.(\w+)=([\w.]*\w)", str(error)):
            wanted = PlacementConfig(**(keys | {key: value if value == "auto" else float(value)}))
            pack(wanted, num_clients, Resources(wanted.cpus_per_actor), nodes, "it")
    else:
        assert packing.num_actors <= sum(math.floor(node.num_cpus / cpus_per_actor) for node in nodes)
