"""Tells config files and sweep files apart by their keys, for a command that receives the other kind."""

from collections.abc import Iterable
from dataclasses import fields

from fedvtc.config.layers import read_file
from fedvtc.config.schema import Config
from fedvtc.config.shipped import located

CONFIG_KEYS = {"include", *(field.name for field in fields(Config))}
SWEEP_KEYS = {"base", "set", "variants", "grid", "random", "list", "num_samples", "target", "max_concurrent", "asha"}
"""Keys of a sweep file; `name` and `seed` are left out, because a config file may hold them by mistake."""


def is_config(keys: Iterable[str]) -> bool:
    """Returns True if a file with these keys is a config file, and surely no sweep file."""
    return bool(CONFIG_KEYS.intersection(keys)) and not SWEEP_KEYS.intersection(keys)


def is_sweep_file(file: str) -> bool:
    """Returns True if a file or shipped config can be read, and is a sweep file and surely no config file."""
    layer = read_file(located(file), "", [])
    keys = layer.content.keys() if layer else ()
    return bool(SWEEP_KEYS.intersection(keys)) and not CONFIG_KEYS.intersection(keys)
