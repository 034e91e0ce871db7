"""Tables of the shipped configs, and of the names that a config can use: data sets, backbones, methods."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from rich.table import Table
from rich.text import Text

from fedvtc.config.names import BACKBONES, DATASETS, TIMM
from fedvtc.config.registered import NOUNS, Kind, registered
from fedvtc.config.shipped import located, shipped_names
from fedvtc.learning import methods

_KEYS: Mapping[Kind, str] = {"data": "data.name", "backbones": "population.backbones[].name", "methods": "method.name"}


def names_table(kind: Literal["configs"] | Kind) -> Table:
    """Returns a table of shipped configs, or of names under their config key, with a description."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    if kind == "configs":
        names = {name: _first_comment(located(name)) for name in shipped_names()}
        table.add_column("config", no_wrap=True)
    else:
        names = _names(kind)
        table.add_column(_KEYS[kind])
    table.add_column("")
    for name, text in names.items():
        table.add_row(Text(name), Text(text))
    return table


def _names(kind: Kind) -> dict[str, str]:
    """Returns built-in names, names of installed packages, and the form of other names, with their descriptions."""
    if kind == "data":
        names = dict(DATASETS)
    elif kind == "backbones":
        names = dict.fromkeys(BACKBONES, "") | {f"{TIMM}NAME": "an image model of timm, from pip install fedvtc[timm]"}
    else:
        names = {name: _first_line(import_module(f"{methods.__name__}.{name}")) for name in methods.names()}
    for name, entries in registered(kind).items():
        text = ", ".join(f"{entry.path} of {entry.package}" for entry in entries)
        names[name] = f"in conflict with {text}" if name in names else text
    return names | {"package.module:NAME": f"a {NOUNS[kind]} of your own"}


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def _first_comment(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
