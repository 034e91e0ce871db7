"""Distributions over clients: summary by group, strips, sorted bars, and means by architecture."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.charts.figure import Chart, Choice, Figure, Groups, Row, base, has
from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.reporting.seeds import mean_and_std

METRICS = {
    "accuracy": "accuracy",
    "accuracy/held": "held",
    "accuracy/missing": "missing",
    "accuracy/personalised": "personalised",
    "recall/worst": "worst recall of a class",
    "f1": "F1",
}
"""Columns of clients.csv by their label."""
MAX_STRIP = 3000
"""Points of a strip chart; more clients are drawn as boxes."""
RATE = alt.Scale(domain=[0, 1])
NARROW = alt.Scale(zero=False, nice=True)
JITTER = "(random() - 0.5)"


def summary(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figure of the headline metrics of every group, at the newest evaluation of each run."""
    rows: list[Row] = []
    for group, members in groups_of(runs).items():
        for label, key in HEADLINE_METRICS.items():
            mean, std = mean_and_std([v for run in members if (v := run.numbers.get(key)) is not None])
            if mean is not None:
                spread = {} if std is None else {"low": mean - std, "high": mean + std}
                rows.append({"group": group, "metric": label, "value": mean, **spread})
    if not rows:
        return
    labels = list(HEADLINE_METRICS)
    colour = alt.Color("metric:N", sort=labels, scale=alt.Scale(domain=labels))
    shape = alt.Shape("metric:N", sort=labels, scale=alt.Scale(domain=labels))
    title = "share classified correctly"
    x = alt.X("value:Q", scale=RATE, title=title)
    low = alt.X("low:Q", scale=RATE, title=title)
    bars = base().transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, opacity=0.6)
    points = base().mark_point(filled=True, size=80, opacity=1)
    tips = [alt.Tooltip("group:N"), alt.Tooltip("metric:N"), alt.Tooltip("value:Q", format=".4f")]
    chart: Chart = alt.layer(
        *([bars.encode(x=low, x2="high:Q", y=groups.axis(), color=colour)] if has(rows, "low") else []),
        points.encode(x=x, y=groups.axis(), color=colour, shape=shape, tooltip=tips),
    ).properties(height=_height(groups, 26))
    yield Figure(
        name="summary",
        title="Accuracy of the newest evaluation",
        note="Mean over clients, the worst client, and means on the classes that a client has training images of "
        "(held) and on the others (missing). Lines are one standard deviation over seeds.",
        section="Accuracy",
        rows=rows,
        charts={(): chart},
    )


def clients(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figures of the clients of every group; none before the first evaluation."""
    rows: list[Row] = [row for run in runs for row in _client_rows(run)]
    if not rows:
        return
    labels = _labels(rows)
    is_strip = len(rows) <= MAX_STRIP
    strip = _strip if is_strip else _boxes
    yield Figure(
        name="clients",
        title="Clients of every group",
        note="Clients of all seeds at the newest evaluation. "
        + (
            "One point per client; the tick is the median."
            if is_strip
            else "A box spans the middle half of the clients, the line all of them."
        ),
        section="Clients",
        rows=rows,
        charts={(label,): strip(groups, label) for label in labels},
        labels=("metric",),
    )
    by_backbone = _backbone_rows(rows, labels)
    if len({row["backbone"] for row in by_backbone}) > 1:
        num_lines = len(by_backbone) / len(labels)
        yield Figure(
            name="architectures",
            title="Architectures",
            note="Mean over the clients of an architecture and over seeds; lines are one standard deviation over these "
            "clients.",
            section="Clients",
            rows=by_backbone,
            charts={(label,): _architectures(groups, label, num_lines) for label in labels},
            labels=("metric",),
        )


def sorted_clients(runs: Sequence[RunResult]) -> Iterator[Figure]:
    """Yields the figure of the clients of one run; none before the first evaluation."""
    rows: list[Row] = [row for run in runs for row in _client_rows(run)]
    if rows:
        backbones = sorted({row["backbone"] for row in rows})
        yield Figure(
            name="sorted-clients",
            title="Clients of one run, sorted",
            note="One bar per client, from the lowest to the highest.",
            section="Clients",
            rows=rows,
            charts={(label,): _sorted_bars(label, backbones) for label in _labels(rows)},
            labels=("metric",),
            choices=[Choice("run", "run", {run.name: run.name for run in runs if run.rows})],
            has_groups=False,
            exported_rows=[{"run": members[0].name} for members in groups_of(runs).values() if members[0].rows][:8],
        )


def _labels(rows: Sequence[Row]) -> list[str]:
    """Returns the labels of the metrics that a row has."""
    return [label for label in METRICS.values() if any(row.get(label) is not None for row in rows)]


def _height(groups: Groups, step: int) -> int:
    return step * len(groups.places) + 20


def _client_rows(run: RunResult) -> Iterator[dict[str, Any]]:
    for row in sorted(run.rows, key=lambda row: float(row["client"] or 0)):
        yield {
            "run": run.name,
            "group": run.group,
            "client": int(row["client"] or 0),
            "backbone": row.get("backbone") or "?",
            "images": row.get("num_images"),
            "classes": row.get("num_classes"),
            **{label: row[column] for column, label in METRICS.items() if row.get(column) is not None},
        }


def _tips(label: str) -> list[alt.Tooltip]:
    value = alt.Tooltip(field=label, type="quantitative", format=".4f")
    names = [alt.Tooltip("run:N"), alt.Tooltip("client:Q"), alt.Tooltip("backbone:N")]
    return [*names, alt.Tooltip("images:Q"), alt.Tooltip("classes:Q"), value]


def _strip(groups: Groups, label: str) -> Chart:
    x = alt.X(field=label, type="quantitative", scale=NARROW, title=label)
    points = base().transform_filter(_has(label)).transform_calculate(offset=JITTER).mark_point(size=26, opacity=0.55)
    median = base().transform_filter(_has(label)).mark_tick(thickness=3, size=18)
    middle = alt.X(field=label, type="quantitative", aggregate="median", scale=NARROW, title=label)
    offset = alt.YOffset("offset:Q", scale=alt.Scale(domain=[-0.7, 0.7]))
    # Vega-Lite gives a discrete axis with a continuous offset one step per group.
    return alt.layer(
        points.encode(
            x=x,
            y=groups.axis(),
            yOffset=offset,
            color=groups.colour(legend=None),
            shape=groups.shape(),
            tooltip=_tips(label),
        ),
        median.encode(x=middle, y=groups.axis(), color=alt.value("#8c8c8c")),
    ).properties(height=_height(groups, 28))


def _boxes(groups: Groups, label: str) -> Chart:
    x = alt.X(field=label, type="quantitative", scale=NARROW, title=label)
    boxes = base().transform_filter(_has(label)).mark_boxplot(extent="min-max", size=14)
    chart: Chart = boxes.encode(x=x, y=groups.axis(), color=groups.colour(legend=None))
    return chart.properties(height=_height(groups, 28))


def _sorted_bars(label: str, backbones: Sequence[str]) -> Chart:
    order: list[alt.SortField | dict[str, str]] = [alt.SortField(label, order="ascending")]
    ranked = base().transform_filter(_has(label)).transform_window(rank="row_number()", sort=order)
    left = ranked.transform_calculate(left="datum.rank - 0.9", right="datum.rank - 0.1")
    x = alt.X("left:Q", title="clients, from the lowest", axis=alt.Axis(labels=False, ticks=False, grid=False))
    y = alt.Y(field=label, type="quantitative", scale=RATE, title=label)
    # A backbone has one colour in the bars of all runs.
    colour = alt.Color("backbone:N", scale=alt.Scale(domain=backbones))
    bars: Chart = left.mark_rect().encode(x=x, x2="right:Q", y=y, y2=alt.datum(0), color=colour, tooltip=_tips(label))
    return bars.properties(height=240)


def _backbone_rows(rows: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    cells: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for label in labels:
            if row.get(label) is not None:
                cells.setdefault((row["group"], row["backbone"], label), []).append(row[label])
    found: list[Row] = []
    for (group, backbone, label), values in cells.items():
        mean, std = statistics.fmean(values), statistics.pstdev(values)
        words = {"group": group, "backbone": backbone, "metric": label, "clients": len(values), "mean": mean}
        found.append({**words, "low": mean - std, "high": mean + std})
    return found


def _architectures(groups: Groups, label: str, num_lines: float) -> Chart:
    shown = base().transform_filter(alt.FieldEqualPredicate(field="metric", equal=label))
    y = alt.Y("backbone:N", title=None, axis=alt.Axis(labelLimit=130, ticks=False))
    offset = alt.YOffset("group:N", sort=list(groups.places))
    tips = [
        alt.Tooltip("group:N"),
        alt.Tooltip("backbone:N"),
        alt.Tooltip("clients:Q"),
        alt.Tooltip("mean:Q", format=".4f"),
    ]
    legend = alt.Legend(symbolSize=80)
    colour = groups.colour(legend)
    low = alt.X("low:Q", scale=NARROW)
    x = alt.X("mean:Q", scale=NARROW, title=label)
    return alt.layer(
        shown.mark_rule(opacity=0.5, strokeWidth=1.5).encode(x=low, x2="high:Q", y=y, yOffset=offset, color=colour),
        shown.mark_point(filled=True, size=45, opacity=1).encode(
            x=x, y=y, yOffset=offset, color=colour, shape=groups.shape(legend), tooltip=tips
        ),
    ).properties(height=max(80, round(11 * num_lines) + 20))


def _has(label: str) -> str:
    return f"isValid(datum[{label!r}])"
