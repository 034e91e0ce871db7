import math

import pytest

from fedvtc.sweep.keys import read_keys
from fedvtc.sweep.variants import variants


def drawn(write, random, *, num_samples=200, seed=0):
    """What is drawn for each key."""
    keys, layer = read_keys(write("mine.yaml", f"random: {random}\nnum_samples: {num_samples}\nseed: {seed}\n"))
    problems = []
    found = variants(keys, layer, problems)
    assert problems == []
    return [{setting.key: setting.value for setting in variant} for variant in found]


@pytest.mark.parametrize(
    ("distribution", "low", "high", "middle"),
    [("uniform", 2.0, 6.0, 4.0), ("log_uniform", 1e-4, 1e-2, 1e-3), ("int", 1, 9, 5)],
)
def test_numbers_lie_in_their_range_half_of_them_below_its_middle(write, distribution, low, high, middle):
    values = [draw["a"] for draw in drawn(write, f"{{a: {{{distribution}: [{low}, {high}]}}}}")]

    assert all(low <= value <= high for value in values)
    assert 0.35 < sum(value < middle for value in values) / len(values) < 0.6


def test_whole_numbers_reach_both_ends_and_choices_all_values(write):
    draws = drawn(write, "{a: {int: [1, 3]}, b: {choice: [x, [1, 2], null]}}")

    assert {draw["a"] for draw in draws} == {1, 2, 3}
    assert {str(draw["b"]) for draw in draws} == {"x", "[1, 2]", "None"}


def test_a_draw_depends_on_the_seed_the_key_and_its_number_alone(write):
    a = "a: {uniform: [0, 1]}"
    few = drawn(write, f"{{{a}}}", num_samples=3)
    many = drawn(write, f"{{b: {{uniform: [0, 1]}}, {a}}}", num_samples=5)

    assert [draw["a"] for draw in many[:3]] == [draw["a"] for draw in few]
    assert all(draw["a"] != draw["b"] for draw in many)
    assert drawn(write, f"{{{a}}}", num_samples=3, seed=1) != few


def test_drawn_numbers_are_short(write):
    for draw in drawn(write, "{a: {log_uniform: [1.0e-9, 1.0e+9]}}"):
        assert math.isclose(draw["a"], float(f"{draw['a']:.3e}"), rel_tol=1e-15)
