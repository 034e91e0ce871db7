"""Scalars by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema)."""

import math

import pytest

from fedvtc.config.yaml_text import parse


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("008", 8),
        ("010", 10),
        ("-07", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("01.50", 1.5),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        # Numbers and truth values of YAML 1.1 alone.
        ("1:30", "1:30"),
        ("0b11", "0b11"),
        ("1__0", "1__0"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("2026-11-29", "2026-11-29"),
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("!!float 3", 3.0),
        ("${a.b}", "${a.b}"),
    ],
)
def test_a_scalar_is_the_same_everywhere(word, value):
    for text, expected in ((word, value), (f"a: {word}", {"a": value}), (f"- b: {word}", [{"b": value}])):
        assert repr(parse(text).content) == repr(expected)


def test_aliases_and_merges_have_the_values_of_their_anchor():
    content = parse("a: &x {n: 010, 011: y}\nb: *x\nc: {<<: *x, m: 1:30}\n").content

    assert content["a"]["n"] == content["b"]["n"] == 10
    assert content["c"]["m"] == "1:30"
