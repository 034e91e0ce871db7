import math

from hypothesis import given
from hypothesis import strategies as st

from fedvtc.runtime.balance import WORTH_MOVING, Workload, balance, loads_of, moves
from fedvtc.runtime.opening import client_costs


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


def after(hosts, made):
    left = [[client for client in clients if client not in made] for clients in hosts]
    for client, host in made.items():
        left[host].append(client)
    return left


def test_clients_that_move_by_hand():
    # From 4 the longest would come down to 3.5 on two hosts, which is too little, and to 2 on three.
    assert moves({0: 2, 1: 2, 2: 1.5}, [[0, 1], [2]], 9) == {}
    assert moves({0: 2, 1: 2, 2: 1.5}, [[0, 1], [2], []], 9) == {0: 2}
    assert moves({0: 5, 1: 1, 2: 1}, [[0, 1, 2], [], []], 9) == {0: 1}
    # 10 to 8 is not more than a fifth. From 10 to 7.5 is, and from there to 5 it is as well.
    assert moves({0: 8, 1: 2}, [[0, 1], []], 9) == {}
    assert moves(dict.fromkeys(range(4), 2.5), [[0, 1, 2, 3], []], 9) == {0: 1, 1: 1}
    # From 10 to 6; to 5 would be less than a fifth again.
    assert moves(dict.fromkeys(range(10), 1), [list(range(10)), []], 99) == dict.fromkeys(range(4), 1)
    # No host has room.
    assert moves({0: 1, 1: 1, 2: 1}, [[0, 1, 2], []], 0) == {}


@st.composite
def layouts(draw):
    costs = draw(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=30))
    num_hosts = draw(st.integers(1, 6))
    hosts = [[] for _ in range(num_hosts)]
    for client in range(len(costs)):
        hosts[draw(st.integers(0, num_hosts - 1))].append(client)
    return dict(enumerate(costs)), hosts


@given(layouts())
def test_moves_pay_or_are_not_made(layout):
    costs, hosts = layout
    made = moves(costs, hosts, len(costs))
    moved = after(hosts, made)
    assert sorted(client for clients in moved for client in clients) == list(range(len(costs)))
    longest, shorter = max(loads_of(costs, hosts)), max(loads_of(costs, moved))
    if made:
        assert shorter < longest * (1 - WORTH_MOVING) * (1 + 1e-9)
        assert all(client not in hosts[host] for client, host in made.items())
        assert moves(costs, hosts, len(costs)) == made
        # All at once, for each move builds clients again.
        assert moves(costs, moved, len(costs)) == {}
    elif len(hosts) > 1:
        assert shorter == longest


@given(st.integers(1, 40), st.integers(2, 8))
def test_clients_alike_all_on_one_host_are_evened_out(num_clients, num_hosts):
    hosts = [list(range(num_clients)), *([] for _ in range(num_hosts - 1))]
    made = moves(dict.fromkeys(range(num_clients), 1.0), hosts, num_clients)
    longest = max(map(len, after(hosts, made)))
    ideal = max(num_clients / num_hosts, 1)
    assert longest == math.ceil(ideal) or longest * (1 - WORTH_MOVING) <= ideal
    # The last one to move did not do so in vain.
    assert not made or (longest + 1) * (1 - WORTH_MOVING) > ideal


def test_seconds_take_the_place_of_guesses():
    workload = Workload({0: 100.0, 1: 300.0, 2: 200.0})
    assert workload.expected() == {0: 100.0, 1: 300.0, 2: 200.0}
    workload.begin([[0], [1]])
    workload.done(0, "a", 2.0)
    workload.done(1, "b", 4.0)
    assert workload.record() == {"time/makespan": 4.0}
    # 6 seconds were seen for 400 of the guess.
    assert workload.expected() == {0: 2.0, 1: 4.0, 2: 3.0}
    assert not workload.is_known
    workload.begin([[0, 2], [1]])
    workload.done(0, "a", 4.0)
    workload.done(2, "a", 1.5)
    workload.done(1, "b", 4.0)
    assert workload.record() == {"time/makespan": 5.5, "time/makespan/predicted": 5.0}
    # The first round does not count any more; after it the newest seconds count half.
    assert workload.expected() == {0: 4.0, 1: 4.0, 2: 1.5}
    assert workload.is_known
    workload.done(0, "a", 2.0)
    assert workload.expected()[0] == 3.0


def test_guesses_grow_with_images_and_operations(tiny_config, tiny_dataset):
    costs = client_costs(tiny_config(), tiny_dataset, ["cnn_2x8", "cnn_2x8", "resnet8", "resnet18"], [10, 20, 10, 0])
    assert costs[1] == 2 * costs[0]
    assert costs[2] > 20 * costs[0]
    assert costs[3] > 0
