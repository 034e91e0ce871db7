from dataclasses import dataclass, field, fields, is_dataclass

from fedvtc.config import Config, FieldDoc, MethodConfig, field_docs, operation, schema
from fedvtc.config.keys import key_of
from fedvtc.learning.methods import config_classes


@dataclass(frozen=True)
class InnerConfig:
    """Nested."""

    rate: float = 0.5
    """A rate,
    over two lines."""


@dataclass(frozen=True)
class OuterConfig(MethodConfig):
    """With a field of its own."""

    inner: InnerConfig = field(default_factory=lambda: InnerConfig(rate=0.25))
    """Not a key: its fields are."""
    flag: bool = True
    """A flag."""


def test_keys_types_defaults_and_texts():
    assert field_docs(OuterConfig, "method")[2:] == [
        FieldDoc("method.inner.rate", "float", "0.25", "A rate, over two lines."),
        FieldDoc("method.flag", "bool", "true", "A flag."),
    ]
    assert field_docs(OuterConfig, "method")[:2] == field_docs(MethodConfig, "method")


def test_types_and_defaults_read_as_on_the_command_line():
    docs = {doc.key: doc for doc in field_docs(Config)}
    assert docs["placement.pool"].type == "ray | inline"
    assert docs["data.image_size"].type == "int | null"
    assert docs["data.image_size"].default == "null"
    assert docs["population.backbones"].type == "list of {name, share}"
    assert docs["population.backbones"].default.startswith("[{name: cnn_2x16, share: 0.25}, ")


def test_every_key_is_documented():
    for cls in [Config, *config_classes().values()]:
        for doc in field_docs(cls):
            assert doc.text.endswith("."), doc.key


def test_every_config_class_is_reached():
    sections = [
        value for value in (vars(schema) | vars(operation)).values() if isinstance(value, type) and is_dataclass(value)
    ]
    keys = {doc.key.rsplit(".", 1)[-1] for doc in field_docs(Config)}
    for section in sections:
        if section is Config:
            continue
        for name in (key_of(each) for each in fields(section)):
            assert name in keys | {"optimizer", "share", "wandb"}
