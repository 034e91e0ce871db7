from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.config.participation import round_half_up
from fedvtc.learning.seeding import SERVER, choose_evaluated, choose_participants, derive_seed, numpy_generator

KEYS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(-1, 30), st.sampled_from(["train", "generator"]))


def seed_of(key):
    seed, round, client, purpose = key
    return derive_seed(seed, round=round, client=client, purpose=purpose)


def test_a_seed_is_the_head_of_a_sha256():
    # printf '0/1/2/train' | sha256sum begins with this, halved to 63 bits.
    assert seed_of((0, 1, 2, "train")) == 0xA5BF0623153D4F7A >> 1


@given(KEYS, KEYS)
def test_seeds_are_alike_for_alike_keys_only(first, second):
    assert (seed_of(first) == seed_of(second)) == (first == second)
    assert 0 <= seed_of(first) < 2**63


def test_neighbouring_digits_do_not_run_together():
    assert len({seed_of(key) for key in [(1, 11, 1, "a"), (11, 1, 1, "a"), (1, 1, 11, "a"), (1, 1, 1, "1a")]}) == 4


def test_numpy_generators_repeat_by_key():
    def draw(**changes):
        return numpy_generator(0, **({"round": 1, "client": 2, "purpose": "x"} | changes)).random(3).tolist()

    assert draw() == draw()
    assert draw() != draw(round=2)
    assert draw() != draw(client=SERVER)
    assert draw() != draw(purpose="y")


@pytest.mark.parametrize(("value", "rounded"), [(0.0, 0), (0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (2.51, 3), (7.0, 7)])
def test_halves_go_up(value, rounded):
    assert round_half_up(value) == rounded


@given(
    seed=st.integers(0, 5),
    round=st.integers(1, 99),
    num_clients=st.integers(1, 60),
    participation=st.floats(0.001, 1.0),
)
def test_participants_are_different_clients_in_order_as_many_as_asked(seed, round, num_clients, participation):
    chosen = choose_participants(seed, round=round, num_clients=num_clients, participation=participation)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == max(1, round_half_up(participation * num_clients))
    assert 0 <= chosen[0] <= chosen[-1] < num_clients
    assert chosen == choose_participants(seed, round=round, num_clients=num_clients, participation=participation)


def test_half_of_five_clients_is_three_and_a_tenth_of_four_is_one():
    assert len(choose_participants(0, round=1, num_clients=5, participation=0.5)) == 3
    assert len(choose_participants(0, round=1, num_clients=4, participation=0.1)) == 1


def test_a_sample_of_evaluated_clients_follows_from_the_seed():
    def choose(seed, evaluated):
        return choose_evaluated(seed, num_clients=30, evaluated=evaluated)

    samples = {tuple(choose(seed, 5)) for seed in range(4)}
    assert len(samples) == 4
    assert all(len(set(sample)) == 5 and list(sample) == sorted(sample) for sample in samples)
    assert choose(0, "all") == choose(0, 30) == choose(0, 31) == list(range(30))


def test_all_clients_take_part_equally_often_in_the_long_run():
    turns = Counter()
    for round in range(1, 1001):
        turns.update(choose_participants(0, round=round, num_clients=10, participation=0.3))
    # 300 each, a standard deviation of 14.5.
    assert all(240 < turns[client] < 360 for client in range(10))


def test_rounds_and_seeds_draw_differently():
    def choose(seed, round):
        return tuple(choose_participants(seed, round=round, num_clients=30, participation=0.5))

    assert len({choose(seed, round) for seed in range(3) for round in range(1, 5)}) == 12
