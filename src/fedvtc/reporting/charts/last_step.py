"""Clients before and after the last step of a method, such as fine-tuning."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from fedvtc.reporting.charts.clients import METRICS
from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, base, once
from fedvtc.reporting.results import RunResult

LABELS = {column: METRICS[column] for column in ("accuracy", "accuracy/held", "accuracy/missing")}
MAX_POINTS = 3000
"""Points of the chart; of more clients every n-th is drawn."""
RATE = alt.Scale(domain=[0, 1])


def last_step(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figure of accuracies before and after the last step; none if no method has a last step."""
    stepped = [run for run in runs if _is_changed(run)]
    every = -(-sum(len(run.rows) for run in stepped) // MAX_POINTS) or 1
    rows = [row for run in stepped for row in _client_rows(run, every)]
    if rows:
        thinned = f" Every {every}th client is drawn." if every > 1 else ""
        yield Figure(
            name="last-step",
            title="Before and after the last step",
            note="A point is a client, by its accuracy after the last round and after the last step of the method, "
            "such as fine-tuning on generated images; above the line the step helps." + thinned,
            section="Clients",
            rows=rows,
            charts={
                (label,): _chart(groups.having({row["group"] for row in rows}), label) for label in LABELS.values()
            },
            labels=("metric",),
        )


def _is_changed(run: RunResult) -> bool:
    """True if a client of both evaluations has other numbers; a sample in the last round lacks clients."""
    before, after = _numbers(run.rows_before), _numbers(run.rows)
    return any(before[client] != after[client] for client in before.keys() & after.keys())


def _numbers(rows: Sequence[Row]) -> dict[Any, list[Any]]:
    return {row["client"]: [row.get(column) for column in LABELS] for row in rows}


def _client_rows(run: RunResult, every: int) -> Iterator[dict[str, Any]]:
    before = {row["client"]: row for row in run.rows_before}
    for row in run.rows[::every]:
        about = {"run": run.name, "group": run.group, "client": int(row["client"] or 0)}
        found: dict[str, Any] = {**about, "backbone": row.get("backbone") or "?"}
        for column, label in LABELS.items():
            pair = before.get(row["client"], {}).get(column), row.get(column)
            if None not in pair:
                found |= {f"{label} before": pair[0], f"{label} after": pair[1]}
        yield found


def _chart(groups: Groups, label: str) -> Chart:
    before, after = f"{label} before", f"{label} after"
    x = alt.X(field=before, type="quantitative", scale=RATE, title=f"{label} after the last round")
    y = alt.Y(field=after, type="quantitative", scale=RATE, title=f"{label} after the last step")
    tips = [alt.Tooltip("run:N"), alt.Tooltip("client:Q"), alt.Tooltip("backbone:N")]
    tips += [alt.Tooltip(field=name, type="quantitative", format=".4f") for name in (before, after)]
    line = once().mark_rule(strokeDash=[3, 3], opacity=0.6)
    points = base().transform_filter(f"isValid(datum[{before!r}])").mark_point(size=36, opacity=0.7)
    return alt.layer(
        line.encode(x=alt.datum(0), y=alt.datum(0), x2=alt.datum(1), y2=alt.datum(1)),
        points.encode(x=x, y=y, color=groups.colour(alt.Legend()), shape=groups.shape(alt.Legend()), tooltip=tips),
    ).properties(height=360)
