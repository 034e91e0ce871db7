"""A config as text, and as plain values."""

import dataclasses
from typing import Any

from omegaconf import OmegaConf

from fedvtc.config.schema import Config


def to_dict(config: Config) -> dict[str, Any]:
    """A config as plain dicts, lists and values, under its keys."""
    return dataclasses.asdict(config, dict_factory=_keyed)


def to_yaml(config: Config) -> str:
    """A config as YAML that `load` reads back as an equal config."""
    # OmegaConf's writer, for it quotes texts that its own reader would take for numbers ('1e-3').
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def _keyed(items: list[tuple[str, Any]]) -> dict[str, Any]:
    # As `key_of`: a field that would be a word of Python ends in an underscore.
    return {name.removesuffix("_"): value for name, value in items}
