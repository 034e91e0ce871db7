"""Parts of heat maps: axes, colours, and how many cells a page has room for."""

from collections.abc import Sequence

import altair as alt

from fedvtc.reporting.charts.style import SEQUENTIAL

MAX_CELLS = 40_000
"""Cells of all runs in one figure; further runs, then further clients, are left out, which keeps the page small."""
MAX_DRAWN = 20_000
"""Cells of one chart, which a browser draws in about a second; of more clients every n-th is drawn."""
MAX_HEIGHT = 900
MAX_WRITTEN = 8
"""Columns whose cells have room for their numbers on a phone."""
MIN_STEP = 14
"""Height of a row that has room for numbers."""
LETTER_WIDTH, NARROW_WIDTH = 7, 300
"""Pixels of a letter of a label, and of a chart on a phone, where the labels of a level axis must fit."""
NONE_OF_ALL = "#440154"
"""The colour of the share 0."""


def every_nth(num_cells: int) -> int:
    """Returns n if a chart of this many cells has room for every n-th client."""
    return -(-num_cells // MAX_DRAWN)


def thinned(every: int) -> str:
    """Returns the sentence about clients that are left out, with a space before it; empty without any."""
    return f" One client of {every} is drawn; the files of the run have all." if every > 1 else ""


def clients_axis(num_clients: int) -> alt.Y:
    """Returns a vertical axis with a row per client, and at most 40 labels."""
    values = list(range(0, num_clients, -(-num_clients // 40)))
    return alt.Y("client:O", title="client", axis=alt.Axis(values=values, ticks=False, domain=False))


def names_of_all(names: Sequence[Sequence[str]]) -> tuple[list[str], bool]:
    """Returns the names of all runs in order, and True if all runs have the same names."""
    union = list(dict.fromkeys(name for own in names for name in own))
    return union, all(list(own) == union for own in names)


def names_scale(names: Sequence[str], is_fixed: bool) -> alt.Scale:
    """Returns a scale with a place for every name, or for the names of the drawn rows if `is_fixed` is False."""
    return alt.Scale(domain=list(names)) if is_fixed else alt.Scale()


def names_axis(field: str, names: Sequence[str], *, is_fixed: bool = True, label_limit: int = 70) -> alt.X:
    """Returns a horizontal axis with a column per name, in the given order.

    Args:
        field: name of the column of the names, and title of the axis.
        names: names in order.
        is_fixed: True if names without a row have a column too.
        label_limit: pixels of a name; longer names are cut.
    """
    angle = 0 if LETTER_WIDTH * len(names) * max(map(len, names)) <= NARROW_WIDTH else -60
    axis = alt.Axis(labelAngle=angle, labelOverlap=True, ticks=False, domain=False, labelLimit=label_limit)
    scale = names_scale(names, is_fixed)
    return alt.X(field, type="nominal", sort=list(names), scale=scale, title=field, axis=axis)


def rows_height(num_rows: int) -> int:
    """Returns the height of a heat map."""
    return int(min(MAX_HEIGHT, max(60, 18 * num_rows)))


def share_colour(field: str, title: str) -> alt.Color:
    """Returns the colour of a share between 0 and 1."""
    scale = alt.Scale(scheme=SEQUENTIAL, domain=[0, 1])
    return alt.Color(field, type="quantitative", scale=scale, legend=alt.Legend(title=title, gradientLength=180))
