"""A figure: numbers as rows, and one or several Altair charts of these rows."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from fedvtc.reporting.charts.style import colour_of, dash_of, shape_of

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
Row = Mapping[str, Any]
TABLE = "table"
"""Name of a chart's data."""
LEGEND = alt.Legend(symbolType="stroke", symbolSize=400)
"""Lines that are long enough to show their dashes."""


@dataclass(frozen=True)
class Choice:
    """A choice between rows: a chart shows the rows with the chosen value.

    Attributes:
        label: label of the list of options.
        field: the field that is compared.
        options: text by value.
    """

    label: str
    field: str
    options: Mapping[Any, str]


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: name of the files.
        title: the heading.
        note: what the figure shows, and how to read it, in one or two sentences.
        section: heading of the part of the page.
        rows: the numbers.
        charts: charts of the rows, by the values of `labels`.
        labels: labels of the lists that choose a chart.
        choices: lists that choose rows.
        meanings: a sentence about a chart, by the key of the chart.
        exported: keys of the charts that become files; the first chart without keys.
        exported_rows: values of `choices` that become files, by field; the first option of each without values.
        has_groups: True if every row has a `group`, so that the reader may hide groups.
    """

    name: str
    title: str
    note: str
    section: str
    rows: Sequence[Row]
    charts: Mapping[tuple[str, ...], Chart]
    labels: Sequence[str] = ()
    choices: Sequence[Choice] = ()
    meanings: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    exported: Sequence[tuple[str, ...]] = ()
    exported_rows: Sequence[Mapping[str, Any]] = ()
    has_groups: bool = True

    def csv(self) -> str:
        """Returns the rows as CSV."""
        return as_csv(self.rows)

    def parse(self) -> dict[str, str]:
        """Returns the type of each column, for Vega."""
        return {name: _type(name, self.rows) for name in columns_of(self.rows)}


@dataclass(frozen=True)
class Groups:
    """The groups of a report with their fixed colours.

    Attributes:
        places: place of each group in the table of colours, in order of appearance.
    """

    places: Mapping[str, int] = field(default_factory=dict)

    def having(self, names: Collection[str]) -> "Groups":
        """Returns the groups of these names."""
        return Groups({group: place for group, place in self.places.items() if group in names})

    def colour(self, legend: alt.Legend | None = LEGEND) -> alt.Color:
        """Returns the colour by group."""
        colours = [colour_of(place) for place in self.places.values()]
        return alt.Color("group:N", scale=alt.Scale(domain=list(self.places), range=colours), legend=legend)

    def dash(self) -> alt.StrokeDash:
        """Returns the dash by group; the legend of the colours shows the dashes."""
        dashes = [list(dash_of(place)) for place in self.places.values()]
        return alt.StrokeDash("group:N", scale=alt.Scale(domain=list(self.places), range=dashes), legend=LEGEND)

    def shape(self, legend: alt.Legend | None = None) -> alt.Shape:
        """Returns the shape of points by group."""
        shapes = [shape_of(place) for place in self.places.values()]
        return alt.Shape("group:N", scale=alt.Scale(domain=list(self.places), range=shapes), legend=legend)

    def axis(self, *, title: str | None = None) -> alt.Y:
        """Returns the vertical axis with one line per group."""
        return alt.Y("group:N", sort=list(self.places), title=title, axis=alt.Axis(labelLimit=130, ticks=False))


def has(rows: Sequence[Row], name: str) -> bool:
    """Returns True if a row has a value; Vega warns of layers without any."""
    return any(row.get(name) is not None for row in rows)


def base() -> alt.Chart:
    """Returns a chart of the figure's rows."""
    return alt.Chart(alt.NamedData(TABLE))


def bars(groups: Groups, unit: str) -> alt.Chart:
    """Returns a chart of a bar per group, from the rows' `part` and `value`."""
    tips = ["group:N", "part:N", alt.Tooltip("value:Q", format=",.4~g", title=unit)]
    shown = base().mark_bar(height={"band": 0.7})
    shown = shown.encode(x=alt.X("value:Q", title=unit, stack="zero"), y=groups.axis(), tooltip=tips)
    chart: alt.Chart = shown.properties(height=22 * len(groups.places) + 20)
    return chart


def once() -> alt.Chart:
    """Returns a chart of one row, for a line that is drawn once; thousands of equal dashed lines take minutes."""
    return base().transform_aggregate(rows="count()")


def field_name(name: str) -> str:
    """Returns a name without the letters that Vega reads as a path."""
    return re.sub(r"[.\[\]\\'\"]", "_", name)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Returns the keys of all rows, in the order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def as_csv(rows: Sequence[Row]) -> str:
    """Returns rows as CSV; floats with six digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def _type(name: str, rows: Sequence[Row]) -> str:
    values = (row[name] for row in rows if row.get(name) is not None)
    return "number" if isinstance(next(values, 0.0), int | float) else "string"
