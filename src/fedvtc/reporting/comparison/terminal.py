"""Prints a table on the terminal. No number is cut: columns that do not fit stand below the others."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedvtc.reporting.comparison.formats import joined
from fedvtc.reporting.comparison.sheet import Cell, Sheet

GAP = 1
"""Spaces between two columns."""
STYLES = {"": "", "best": "bold", "second": "underline"}


def print_sheet(sheet: Sheet, console: Console, *, is_terminal: bool) -> None:
    """Prints a table, and its notes below.

    Args:
        sheet: the table.
        console: the console.
        is_terminal: True splits a table that is wider than the console into several, each with the labels of the rows.
            False prints one table of any width, for a file or another program.
    """
    labels, widths = _widths(sheet)
    width = console.width
    if not is_terminal:
        console.width = max(width, sum(labels) + sum(widths) + GAP * (len(labels) + len(widths)))
    for number, block in enumerate(_blocks(labels, widths, console.width)):
        if number:
            console.print()
        console.print(_table(sheet, block, widths))
    console.width = width
    console.print(Text(" ".join(sheet.notes), style="table.caption"))


def _widths(sheet: Sheet) -> tuple[list[int], list[int]]:
    """Returns the widths of the leading columns and of the others."""
    labels = [max(map(cell_len, texts)) for texts in zip(sheet.labels, *(row for row, _ in sheet.rows), strict=True)]
    columns = []
    for number, heading in enumerate(sheet.columns):
        texts = [*heading, *(str(_text(cells, number)) for _, cells in sheet.rows)]
        columns.append(max(map(cell_len, texts)))
    return labels, columns


def _blocks(labels: Sequence[int], widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yields the numbers of the columns of each table; a table has at least one column beside the labels."""
    # Labels are folded rather than left without room for numbers.
    taken = min(sum(labels) + GAP * len(labels), width // 2)
    block: list[int] = []
    used = taken
    for number, column in enumerate(widths):
        if block and used + column > width:
            yield block
            block, used = [], taken
        block.append(number)
        used += column + GAP
    yield block


def _table(sheet: Sheet, block: Sequence[int], widths: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for label in sheet.labels:
        table.add_column(Text(label), overflow="fold")
    for number in block:
        heading = Text("\n".join(filter(None, sheet.columns[number])))
        table.add_column(heading, justify="right", no_wrap=True, min_width=widths[number])
    for labels, cells in sheet.rows:
        table.add_row(*map(Text, labels), *(_text(cells, number) for number in block))
    return table


def _text(cells: Sequence[Cell], number: int) -> Text:
    return Text(joined(cells[number], " +- ", str, {}), style=STYLES[cells[number].mark])
