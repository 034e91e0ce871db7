import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.runtime.balance import WORTH_MOVING, Workload, balance, loads_of, moves
from fedvtc.runtime.opening import client_costs


def test_deals_by_hand():
    # 9 to actor 0, 7 to actor 1, 6 to actor 1 (7 < 9), 5 to actor 0, 3 to actor 1 (13 < 14).
    assert balance([5, 9, 3, 7, 6], 2, 5) == [[0, 1], [2, 3, 4]]
    # At most two clients an actor.
    assert balance([10, 1, 1], 2, 2) == [[0], [1, 2]]
    assert balance([1, 1, 10, 10], 2, 2) == [[0, 2], [1, 3]]
    assert balance([2.0], 3, 1) == [[0]]


@st.composite
def deals(draw):
    costs = draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
    num_actors = draw(st.integers(1, 12))
    most = math.ceil(len(costs) / num_actors) + draw(st.integers(0, 3))
    return costs, num_actors, most


@given(deals())
def test_every_client_has_one_actor_and_no_actor_has_too_many_clients(deal):
    costs, num_actors, most = deal
    actors = balance(costs, num_actors, most)
    assert sorted(client for clients in actors for client in clients) == list(range(len(costs)))
    assert len(actors) <= num_actors
    assert all(0 < len(clients) <= most for clients in actors)
    assert all(clients == sorted(clients) for clients in actors)
    assert actors == balance(costs, num_actors, most)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 12))
def test_dealing_the_largest_first_bounds_the_fullest_actor(costs, num_actors):
    # An actor with two clients or more had the least load when it got its last client, at most the (m + 1)-th
    # costliest (Graham 1969). A smallest-first deal of 1, 1, ..., 1, m breaks this bound.
    loads = [sum(costs[client] for client in clients) for clients in balance(costs, num_actors, len(costs))]
    ordered = sorted(costs, reverse=True)
    last = ordered[num_actors] if len(costs) > num_actors else 0.0
    assert max(loads) <= max(ordered[0], sum(costs) / num_actors + last * (1 - 1 / num_actors)) + 1e-6


def after(actors, made):
    """The clients of each actor after the moves."""
    left = [[client for client in clients if client not in made] for clients in actors]
    for client, actor in made.items():
        left[actor].append(client)
    return left


def moved(costs, actors, busy=None, rooms=None):
    """The moves of clients that wait for idle actors with room, unless said otherwise."""
    return moves(costs, actors, busy or [0.0] * len(actors), rooms or [99] * len(actors))


def test_moves_by_hand():
    # The busiest actor has 4. On two actors 3.5 is possible; on three, 2 is possible.
    assert moved({0: 2, 1: 2, 2: 1.5}, [[0, 1], [2]]) == ({0: 1}, 0.5)
    assert moved({0: 2, 1: 2, 2: 1.5}, [[0, 1], [2], []]) == ({0: 2}, 2)
    # From 50 to 49 is too little gain.
    assert moved({0: 49, 1: 1, 2: 48}, [[0, 1], [2]]).actor_of == {}
    assert moved({0: 5, 1: 1, 2: 1}, [[0, 1, 2], [], []]).actor_of == {0: 1}
    assert moved({0: 8, 1: 2}, [[0, 1], []]).actor_of == {0: 1}
    assert moved(dict.fromkeys(range(4), 2.5), [[0, 1, 2, 3], []]).actor_of == {0: 1, 1: 1}
    assert moved(dict.fromkeys(range(10), 1), [list(range(10)), []]).actor_of == dict.fromkeys(range(5), 1)
    # Only one actor has room, and only for one client.
    assert moved({0: 1, 1: 1, 2: 1}, [[0, 1, 2], [], []], rooms=[9, -1, 1]).actor_of == {0: 2}
    # No actor may take a client.
    assert moved({0: 1, 1: 1, 2: 1}, [[0, 1, 2], []], rooms=[-3, 0]).actor_of == {}
    assert moved({}, [[], []]) == ({}, 0)


def test_clients_that_wait_for_a_busy_actor_move_to_an_actor_that_is_done():
    # Without the move the last client ends after 6, with the move after 3.
    assert moved({0: 3}, [[0], []], busy=[3, 0]) == ({0: 1}, 3)
    # The other actor would end even later.
    assert moved({0: 3}, [[0], []], busy=[2, 2]).actor_of == {}
    # No client waits for the busiest actor, whose 9 cannot shrink; two of the four others move.
    assert moved(dict.fromkeys(range(4), 1), [[], [0, 1, 2, 3], []], busy=[9, 0, 0]) == ({0: 2, 1: 2}, 2)


@st.composite
def layouts(draw):
    costs = draw(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=30))
    num_actors = draw(st.integers(1, 6))
    actors = [[] for _ in range(num_actors)]
    for client in range(len(costs)):
        actors[draw(st.integers(0, num_actors - 1))].append(client)
    return dict(enumerate(costs)), actors


@given(layouts())
def test_moves_shrink_the_largest_load_or_are_not_made(layout):
    costs, actors = layout
    made, gain = moved(costs, actors)
    dealt = after(actors, made)
    assert sorted(client for clients in dealt for client in clients) == list(range(len(costs)))
    longest, shorter = max(loads_of(costs, actors)), max(loads_of(costs, dealt))
    if made:
        assert gain == pytest.approx(longest - shorter)
        assert shorter < longest * (1 - WORTH_MOVING) * (1 + 1e-9)
        assert all(client not in actors[actor] for client, actor in made.items())
        assert moved(costs, actors) == (made, gain)
        # All moves at once, because each move takes time.
        assert moved(costs, dealt) == ({}, 0)
    elif len(actors) > 1:
        assert shorter == longest


@given(st.integers(1, 40), st.integers(2, 8))
def test_equal_clients_on_one_actor_are_spread_evenly(num_clients, num_actors):
    actors = [list(range(num_clients)), *([] for _ in range(num_actors - 1))]
    made = moved(dict.fromkeys(range(num_clients), 1.0), actors).actor_of
    longest = max(map(len, after(actors, made)))
    ideal = max(num_clients / num_actors, 1)
    assert longest == math.ceil(ideal) or longest * (1 - WORTH_MOVING) <= ideal
    # Without the last move, the load would still be too large.
    assert not made or (longest + 1) * (1 - WORTH_MOVING) > ideal


def test_measured_seconds_replace_estimates():
    workload = Workload({0: 100.0, 1: 300.0, 2: 200.0}, dict.fromkeys(range(3), "cnn"))
    assert workload.expected() == {0: 100.0, 1: 300.0, 2: 200.0}
    workload.begin([[0], [1]])
    workload.done(0, "a", 2.0)
    workload.done(1, "b", 4.0)
    assert workload.record() == {"time/makespan": 4.0}
    # 6 seconds were measured for an estimate of 400.
    assert workload.expected() == {0: 2.0, 1: 4.0, 2: 3.0}
    workload.begin([[0, 2], [1]])
    workload.done(0, "a", 4.0)
    workload.done(2, "a", 1.5)
    workload.done(1, "b", 4.0)
    assert workload.record() == {"time/makespan": 5.5, "time/makespan/predicted": 5.0}
    # The first round no longer counts; from then on the newest seconds count half.
    assert workload.expected() == {0: 4.0, 1: 4.0, 2: 1.5}
    workload.done(0, "a", 2.0)
    assert workload.expected()[0] == 3.0


def test_the_estimates_of_a_backbone_are_scaled_by_the_seconds_of_that_backbone():
    workload = Workload(dict.fromkeys(range(5), 100.0), {0: "cnn", 1: "cnn", 2: "vit", 3: "vit", 4: "resnet"})
    workload.begin([range(5)])
    workload.done(0, "a", 1.0)
    workload.done(2, "a", 5.0)
    # No client of the last backbone was measured: 6 seconds for an estimate of 200.
    assert workload.expected() == {0: 1.0, 1: 1.0, 2: 5.0, 3: 5.0, 4: 3.0}


def test_estimates_grow_with_images_and_operations(tiny_config, tiny_dataset):
    costs = client_costs(tiny_config(), tiny_dataset, ["cnn_2x8", "cnn_2x8", "resnet8", "resnet18"], [10, 20, 10, 0])
    assert costs[1] == 2 * costs[0]
    assert costs[2] > 20 * costs[0]
    assert costs[3] > 0
