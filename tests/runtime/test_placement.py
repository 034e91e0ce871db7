import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.config.schema import PlacementConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.balance import balance
from fedvtc.runtime.placement import Packing, Resources, actor_needs, pack


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


def test_clients_dealt_by_hand():
    # 9 to host 0, 7 to host 1, 6 to host 1 (7 < 9), 5 to host 0, 3 to host 1 (13 < 14).
    assert balance([5, 9, 3, 7, 6], 2, 5) == [[0, 1], [2, 3, 4]]
    # With two clients a host the last one has to go where there is room.
    assert balance([10, 1, 1], 2, 2) == [[0], [1, 2]]
    assert balance([1, 1, 10, 10], 2, 2) == [[0, 2], [1, 3]]
    assert balance([2.0], 3, 1) == [[0]]


@st.composite
def deals(draw):
    costs = draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
    num_hosts = draw(st.integers(1, 12))
    most = math.ceil(len(costs) / num_hosts) + draw(st.integers(0, 3))
    return costs, num_hosts, most


@given(deals())
def test_every_client_has_one_host_and_no_host_too_many(deal):
    costs, num_hosts, most = deal
    hosts = balance(costs, num_hosts, most)
    assert sorted(client for clients in hosts for client in clients) == list(range(len(costs)))
    assert len(hosts) <= num_hosts
    assert all(0 < len(clients) <= most for clients in hosts)
    assert all(clients == sorted(clients) for clients in hosts)
    assert hosts == balance(costs, num_hosts, most)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 12))
def test_dealing_the_largest_first_bounds_the_fullest_host(costs, num_hosts):
    # A host with two clients or more got its last one, at most the (m + 1)-th largest, when it had the least of all
    # (Graham 1969). A smallest-first deal of 1, 1, ..., 1, m breaks this bound.
    loads = [sum(costs[client] for client in clients) for clients in balance(costs, num_hosts, len(costs))]
    ordered = sorted(costs, reverse=True)
    last = ordered[num_hosts] if len(costs) > num_hosts else 0.0
    assert max(loads) <= max(ordered[0], sum(costs) / num_hosts + last * (1 - 1 / num_hosts)) + 1e-6
