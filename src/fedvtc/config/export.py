"""The config as YAML and as plain values."""

import dataclasses
from typing import Any

from omegaconf import OmegaConf

from fedvtc.config.schema import Config
from fedvtc.config.section import key_of


def to_dict(config: Config) -> dict[str, Any]:
    """Returns a config as nested dicts and lists of plain values, by key."""
    return dataclasses.asdict(config, dict_factory=_keyed)


def to_yaml(config: Config) -> str:
    """Returns a config as YAML that `load` reads back as an equal config."""
    # OmegaConf's writer quotes texts that OmegaConf's reader would take for numbers ('1e-3').
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def _keyed(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key_of(name): value for name, value in items}
