"""Tables of the shipped configs, and of the names that a config can use: data sets, backbones, methods."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from rich.table import Table
from rich.text import Text

from fedvtc.config.names import BACKBONES, DATASETS
from fedvtc.config.shipped import located, shipped_names
from fedvtc.learning import methods


def names_table(kind: Literal["configs", "data", "backbones", "methods"]) -> Table:
    """Returns a table of shipped configs, or of names under their config key; all but backbones with a description."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    if kind == "configs":
        names = {name: _first_comment(located(name)) for name in shipped_names()}
        table.add_column("config", no_wrap=True)
    elif kind == "data":
        names = DATASETS
        table.add_column("data.name")
    elif kind == "backbones":
        names = dict.fromkeys(BACKBONES, "")
        table.add_column("population.backbones[].name")
    else:
        names = {name: _first_line(import_module(f"{methods.__name__}.{name}")) for name in methods.names()}
        table.add_column("method.name")
    table.add_column("")
    for name, text in names.items():
        table.add_row(Text(name), Text(text))
    return table


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def _first_comment(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
