"""Builds the table of a partition for the terminal, and formats numbers for people.

Shape suffixes: K clients, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fedvtc.errors import count_of

MAX_CLIENTS_SHOWN = 40
MAX_CLASSES_SHOWN = 12
"""With more classes, or on a narrow terminal, a row names the largest classes instead of a column for each class."""
LARGEST_SHOWN = 4


def human_bytes(num_bytes: float) -> str:
    """Formats bytes in decimal units, such as `1.2 MB`."""
    return _human(num_bytes, ("B", "kB", "MB", "GB", "TB", "PB"))


def human_count(num: float) -> str:
    """Formats a count, such as parameters, as `1.2 M`."""
    return _human(num, ("", "k", "M", "G", "T"))


def class_table(
    counts_KC: NDArray[Any],
    class_names: Sequence[str],
    backbones: Sequence[str],
    *,
    max_width: int | None = None,
) -> Table:
    """Builds a table with one row per client: backbone, number of training images, images by class.

    With many classes, a row names the largest classes of a client only. With many clients, the table holds the first
    `MAX_CLIENTS_SHOWN` and the caption counts the others.

    Args:
        counts_KC: training images by client and class.
        class_names: class names, in class order.
        backbones: backbone names, in client order.
        max_width: columns of the terminal; with less than a column for each class needs, a row names the largest
            classes only.
    """
    counts_KC = np.asarray(counts_KC)
    if counts_KC.shape[1] <= MAX_CLASSES_SHOWN:
        table = _class_table(counts_KC, class_names, backbones, each_class=True)
        # Two spaces and a line for each column.
        if max_width is None or sum((column.min_width or 0) + 3 for column in table.columns) < max_width:
            return table
    return _class_table(counts_KC, class_names, backbones, each_class=False)


def _class_table(
    counts_KC: NDArray[Any], class_names: Sequence[str], backbones: Sequence[str], *, each_class: bool
) -> Table:
    table = Table(title="Training images by client", title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("client", justify="right")
    table.add_column("backbone")
    table.add_column("images", justify="right")
    table.add_column("classes", justify="right")
    if each_class:
        for name in class_names:
            table.add_column(Text(name), justify="right")
    else:
        table.add_column("largest classes")
    for client, counts_C in enumerate(counts_KC[:MAX_CLIENTS_SHOWN]):
        if each_class:
            cells = [Text(f"{count:d}") if count else Text(".", style="dim") for count in counts_C]
        else:
            cells = [Text(_largest_classes(counts_C, class_names))]
        held = int(np.count_nonzero(counts_C))
        table.add_row(str(client), Text(backbones[client]), f"{counts_C.sum():d}", str(held), *cells)
    if len(counts_KC) > MAX_CLIENTS_SHOWN:
        rest_KC = counts_KC[MAX_CLIENTS_SHOWN:]
        table.caption = f"and {count_of(len(rest_KC), 'more client')} with {count_of(rest_KC.sum(), 'image')}"
    keep_words(table)
    return table


def keep_words(table: Table) -> None:
    """Sets the least width of each column, so that a narrow console cuts no word and no number with its unit."""
    for column in table.columns:
        words = [word for cell in (column.header, *column.cells) for word in str(cell).split()]
        numbers = [str(cell) for cell in column.cells] if column.justify == "right" else []
        column.min_width = max(map(cell_len, [*words, *numbers]), default=0)


def _largest_classes(counts_C: NDArray[Any], class_names: Sequence[str]) -> str:
    largest = [label for label in np.argsort(-counts_C, kind="stable")[:LARGEST_SHOWN] if counts_C[label]]
    words = [f"{class_names[label]}: {counts_C[label]:d}" for label in largest]
    num_more = int(np.count_nonzero(counts_C)) - len(largest)
    return ", ".join([*words, f"{num_more} more"] if num_more else words)


def _human(value: float, units: Sequence[str]) -> str:
    for unit in units:
        # 999.95 would print as 1000.0, so larger numbers take the next unit.
        if abs(value) < 999.95 or unit == units[-1]:
            break
        value /= 1000
    digits = 0 if unit == units[0] else 1
    return f"{value:.{digits}f} {unit}".rstrip()
