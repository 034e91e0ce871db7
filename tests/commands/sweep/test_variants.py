import math
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.commands.sweep.sweep_file import read_keys
from fedvtc.commands.sweep.variants import variants


def drawn(write, random, *, num_samples=200, seed=0):
    """What is drawn for each key."""
    keys, layer = read_keys(write("mine.yaml", f"random: {random}\nnum_samples: {num_samples}\nseed: {seed}\n"))
    problems = []
    found = variants(keys, layer, problems)
    assert problems == []
    return [{setting.key: setting.value for setting in variant} for variant in found]


@pytest.mark.parametrize(
    ("distribution", "low", "high", "middle"),
    [("uniform", 2.0, 6.0, 4.0), ("log_uniform", 1e-4, 1e-2, 1e-3), ("int", 1, 999, 500)],
)
def test_numbers_lie_in_their_range_half_of_them_below_its_middle(write, distribution, low, high, middle):
    values = [draw["a"] for draw in drawn(write, f"{{a: {{{distribution}: [{low}, {high}]}}}}")]

    assert all(low <= value <= high for value in values)
    assert 0.35 < sum(value < middle for value in values) / len(values) < 0.6


def test_whole_numbers_reach_both_ends_and_choices_all_values(write):
    draws = drawn(write, "{a: {int: [1, 3]}, b: {choice: [x, [1, 2], null]}}", num_samples=9)

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


def made(random, num_samples, seed):
    """What is drawn for each key, and the problems."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mine.yaml")
        file.write_text(f"random: {random}\nnum_samples: {num_samples}\nseed: {seed}\n")
        keys, layer = read_keys(file)
    problems = []
    found = variants(keys, layer, problems)
    return [{setting.key: setting.value for setting in variant} for variant in found], problems


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_draws_differ_and_more_of_them_leave_the_earlier_ones_as_they_are(seed, one, other):
    random = "{a: {int: [1, 4]}, b: {choice: [true, 1, x]}}"
    few, problems = made(random, min(one, other), seed)
    many, more_problems = made(random, max(one, other), seed)

    assert problems == more_problems == []
    assert (len(few), len(many)) == (min(one, other), max(one, other))
    assert many[: len(few)] == few
    assert len({repr(draw) for draw in many}) == len(many)


def test_a_draw_that_repeats_itself_is_passed_over():
    assert [Random(f"0/a/{number}").randint(1, 2) for number in range(3)] == [1, 1, 2]

    draws, problems = made("{a: {int: [1, 2]}}", 2, 0)

    assert (draws, problems) == ([{"a": 1}, {"a": 2}], [])


def test_a_value_may_be_more_likely_than_others():
    draws, problems = made("{a: {choice: [x, x, x, y]}}", 2, 0)

    assert ({draw["a"] for draw in draws}, problems) == ({"x", "y"}, [])


@pytest.mark.parametrize(
    ("random", "num_found"),
    [("{a: {int: [1, 3]}}", 3), ("{a: {choice: [x, y]}, b: {choice: [1]}}", 2), ("{a: {uniform: [1, 1]}}", 1)],
)
def test_where_too_few_draws_differ_it_is_said_how_many_do(random, num_found):
    _, (problem,) = made(random, 4, 0)

    assert problem.where.endswith("/mine.yaml:2")
    assert str(problem) == (
        f"num_samples: 4 draws that differ are wanted, and among 400 there are {num_found} ({problem.where}). "
        f"Set it to {num_found}, or give random more values."
    )


def test_of_a_faulty_distribution_that_alone_is_said():
    _, problems = made("{a: {int: [1, 1]}, b: {int: 3}}", 4, 0)

    assert [problem.key for problem in problems] == ["random.b"]
