"""Tables of the names that a config can use: data sets, backbones, methods."""

from importlib import import_module
from types import ModuleType
from typing import Literal

from rich.table import Table
from rich.text import Text

from fedvtc.config.schema import BACKBONE_NAMES
from fedvtc.learning import methods

DATASETS = {
    "digits": "10 classes, 8x8 grey, bundled with scikit-learn",
    "mnist": "10 classes, 28x28 grey",
    "fashion-mnist": "10 classes, 28x28 grey",
    "kmnist": "10 classes, 28x28 grey",
    "emnist": "47 classes, 28x28 grey, split balanced",
    "svhn": "10 classes, 32x32 colour",
    "cifar10": "10 classes, 32x32 colour",
    "cifar100": "100 classes, 32x32 colour",
    "tiny-imagenet": "200 classes, 64x64 colour, in the folders it is distributed in",
    "npz": "images of your own in one file, data.path",
    "folder": "images of your own in folders, data.path",
}


def names_table(kind: Literal["data", "backbones", "methods"]) -> Table:
    """Returns a table of names under their config key; data sets and methods with a description."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    if kind == "data":
        names = DATASETS
        table.add_column("data.name")
    elif kind == "backbones":
        names = dict.fromkeys(BACKBONE_NAMES, "")
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
