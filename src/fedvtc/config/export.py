"""A config as text, and its fingerprint."""

import dataclasses
import hashlib
import json
from typing import Any

from omegaconf import OmegaConf

from fedvtc.config.schema import Config

_WITHOUT_EFFECT = {
    "run": ("name", "output_dir"),
    "data": ("root", "download"),
    "method": ("label",),
}


def to_dict(config: Config) -> dict[str, Any]:
    """A config as plain dicts, lists and values."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """A config as YAML that `load` reads back as an equal config."""
    # OmegaConf's writer, for it quotes texts that its own reader would take for numbers ('1e-3').
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def fingerprint(config: Config) -> str:
    """SHA-256, as 64 hex digits, of what decides the numbers of a run.

    Left out is what may differ between two runs with equal numbers: names and folders, where data lie, placement and
    cluster.
    """
    parts = to_dict(config)
    del parts["placement"], parts["cluster"]
    for section, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            del parts[section][key]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
