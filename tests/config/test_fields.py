from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field

from fedvtc.config import Config, FieldDoc, MethodConfig, field_docs, grouped_docs
from fedvtc.config.hints import bounds, choices, hint_at, long_words, metadata, short_words
from fedvtc.config.section import MayChange, section
from fedvtc.learning.methods import config_classes


@section
class InnerConfig:
    """Nested."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A rate,
    over two lines."""


@section
class OuterConfig(MethodConfig):
    """With a field of its own."""

    inner: InnerConfig = field(default_factory=lambda: InnerConfig(rate=0.25))
    """Not a key: its fields are."""
    flag: Annotated[bool, MayChange("Turns.")] = True
    """A flag."""


@dataclass(frozen=True)
class PlainConfig(MethodConfig):
    """A method may use the standard decorator."""

    count: Annotated[int, Field(ge=1)] = 1
    """A count."""


def test_keys_types_ranges_defaults_texts_and_effects():
    assert field_docs(OuterConfig, "method")[2:] == [
        FieldDoc("method.inner.rate", "float", "0.25", "A rate, over two lines.", "above 0 and at most 1"),
        FieldDoc("method.flag", "bool", "true", "A flag.", effect="Turns."),
    ]
    assert field_docs(OuterConfig, "method")[:2] == field_docs(MethodConfig, "method")
    assert field_docs(PlainConfig)[2:] == [FieldDoc("count", "int", "1", "A count.", "at least 1")]


def test_types_and_defaults_read_as_on_the_command_line():
    docs = {doc.key: doc for doc in field_docs(Config)}
    assert docs["placement.pool"].type == "ray | inline | auto"
    assert docs["placement.clients_per_actor"].type == "auto | int"
    assert docs["data.image_size"].type == "int | null"
    assert docs["data.image_size"].default == "null"
    assert docs["population.backbones"].type == "list of {name, share}"
    assert docs["population.backbones"].default.startswith("[{name: cnn_2x16, share: 0.25}, ")
    assert "checkpoint.async" in docs


def test_keys_of_a_method_are_a_group_without_the_common_keys():
    groups = grouped_docs(Config, {"outer": OuterConfig, "none": MethodConfig})
    assert next(iter(groups)) == "run"
    assert [doc.key for doc in groups["method.name=outer"]] == ["method.inner.rate", "method.flag"]
    assert "method.name=none" not in groups


def test_every_key_is_documented():
    for cls in [Config, *config_classes().values()]:
        for doc in field_docs(cls):
            assert doc.text.endswith("."), doc.key


def test_every_section_is_a_frozen_dataclass():
    sections, seen = [Config, *config_classes().values()], set()
    while sections:
        cls = sections.pop()
        seen.add(cls)
        sections += [each.type for each in fields(cls) if is_dataclass(each.type) and each.type not in seen]
        assert cls.__dataclass_params__.frozen
    assert len(seen) > 15


@pytest.mark.parametrize(
    ("hint", "short", "long"),
    [
        (int, "int", "a whole number"),
        (Annotated[int | None, Field(ge=1)], "int | null", "a whole number of at least 1 or null"),
        (Annotated[float, Field(ge=0, lt=1)], "float", "a number of at least 0 and below 1"),
        (Annotated[float, Field(gt=0, le=1)], "float", "a number above 0 and at most 1"),
        (Annotated[float, Field(gt=0)] | None, "float | null", "a number above 0 or null"),
        (Literal["auto"] | Annotated[int, Field(ge=1)], "auto | int", "auto or a whole number of at least 1"),
        (Literal["a", "b", "c"] | None, "a | b | c | null", "one of a, b, c or null"),
        (list[str], "list of text", "a list"),
        (dict[str, int], "dict[str, int]", "a mapping"),
        (Annotated[str, Field(min_length=1)], "text", "text that is not empty"),
        (bool | None, "bool | null", "true or false or null"),
        (InnerConfig, "{rate}", "a mapping with keys rate"),
    ],
)
def test_types_in_words(hint, short, long):
    assert short_words(hint) == short
    assert long_words(hint) == long


def test_a_type_is_found_by_the_path_of_its_key():
    assert short_words(hint_at(Config, ("population", "backbones", 0, "share"))) == "float"
    assert bounds(hint_at(Config, ("checkpoint", "keep"))) == "at least 2"
    assert choices(hint_at(Config, ("placement", "pool"))) == ["ray", "inline", "auto"]
    assert any(isinstance(item, MayChange) for item in metadata(hint_at(Config, ("checkpoint", "async"))))
    for path in [("rnu",), ("run", "sede"), ("checkpoint", "async_"), ("run", "seed", "x"), ("run", 0)]:
        assert hint_at(Config, path) is None
