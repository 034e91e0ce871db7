"""Random draws of a sweep file."""

import math
from random import Random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.commands.sweep.sweep_file import SweepKeys, read_keys
from fedvtc.commands.sweep.variants import variants
from fedvtc.config.layers import Layer


def drawn(write, random, *, num_samples=200, seed=0):
    """The drawn values of each sample, read from a sweep file."""
    keys, layer = read_keys(write("mine.yaml", f"random: {random}\nnum_samples: {num_samples}\nseed: {seed}\n"))
    problems = []
    found = variants(keys, layer, problems)
    assert problems == []
    return [{setting.key: setting.value for setting in variant} for variant in found]


@pytest.mark.parametrize(
    ("distribution", "low", "high", "middle"),
    [("uniform", 2.0, 6.0, 4.0), ("log_uniform", 1e-4, 1e-2, 1e-3), ("int", 1, 999, 500)],
)
def test_about_half_of_the_numbers_are_below_the_middle_of_their_range(write, distribution, low, high, middle):
    values = [draw["a"] for draw in drawn(write, f"{{a: {{{distribution}: [{low}, {high}]}}}}")]

    assert all(low <= value <= high for value in values)
    assert 0.35 < sum(value < middle for value in values) / len(values) < 0.6


def test_integers_reach_both_ends_and_choices_all_values(write):
    draws = drawn(write, "{a: {int: [1, 3]}, b: {choice: [x, [1, 2], null]}}", num_samples=9)

    assert {draw["a"] for draw in draws} == {1, 2, 3}
    assert {str(draw["b"]) for draw in draws} == {"x", "[1, 2]", "None"}


def test_a_draw_depends_on_seed_key_and_number_only(write):
    a = "a: {uniform: [0, 1]}"
    few = drawn(write, f"{{{a}}}", num_samples=3)
    many = drawn(write, f"{{b: {{uniform: [0, 1]}}, {a}}}", num_samples=5)

    assert [draw["a"] for draw in many[:3]] == [draw["a"] for draw in few]
    assert all(draw["a"] != draw["b"] for draw in many)
    assert drawn(write, f"{{{a}}}", num_samples=3, seed=1) != few


def test_drawn_numbers_have_four_digits(write):
    for draw in drawn(write, "{a: {log_uniform: [1.0e-9, 1.0e+9]}}"):
        assert math.isclose(draw["a"], float(f"{draw['a']:.3e}"), rel_tol=1e-15)


def made(random, num_samples, seed):
    """The drawn values of each sample, and the problems."""
    keys = SweepKeys(random=yaml.safe_load(random), num_samples=num_samples, seed=seed)
    problems = []
    found = variants(keys, Layer("mine.yaml", {}, {("num_samples",): 2}), problems)
    return [{setting.key: setting.value for setting in variant} for variant in found], problems


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_draws_differ_and_more_samples_do_not_change_earlier_draws(seed, one, other):
    random = "{a: {int: [1, 4]}, b: {choice: [true, 1, x]}}"
    few, problems = made(random, min(one, other), seed)
    many, more_problems = made(random, max(one, other), seed)

    assert problems == more_problems == []
    assert (len(few), len(many)) == (min(one, other), max(one, other))
    assert many[: len(few)] == few
    assert len({repr(draw) for draw in many}) == len(many)


def test_a_repeated_draw_is_skipped():
    assert [Random(f"0/a/{number}").randint(1, 2) for number in range(3)] == [1, 1, 2]

    draws, problems = made("{a: {int: [1, 2]}}", 2, 0)

    assert (draws, problems) == ([{"a": 1}, {"a": 2}], [])


def test_a_repeated_choice_is_accepted():
    draws, problems = made("{a: {choice: [x, x, x, y]}}", 2, 0)

    assert ({draw["a"] for draw in draws}, problems) == ({"x", "y"}, [])


@pytest.mark.parametrize(
    ("random", "num_found"),
    [("{a: {int: [1, 3]}}", 3), ("{a: {choice: [x, y]}, b: {choice: [1]}}", 2), ("{a: {uniform: [1, 1]}}", 1)],
)
def test_too_few_different_draws_are_a_problem(random, num_found, golden):
    _, (problem,) = made(random, 4, 0)

    assert (problem.key, problem.where) == ("num_samples", "mine.yaml:2")
    assert f"num_samples to {num_found}" in problem.fix
    golden(problem)


def test_a_faulty_distribution_is_the_only_problem():
    _, problems = made("{a: {int: [1, 1]}, b: {int: 3}}", 4, 0)

    assert [problem.key for problem in problems] == ["random.b"]
