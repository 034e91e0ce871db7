"""Measures of privacy, as `fedvtc privacy` measured them."""

from collections.abc import Iterator, Sequence

import altair as alt

from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, base, has
from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.reporting.seeds import mean_and_std
from fedvtc.storage.privacy import read_measures

GENERATED = "psnr/generated"
"""A measure of every run that generates images."""


def privacy(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figure of the measures of privacy; none without privacy.json."""
    rows: list[Row] = []
    for group, members in groups_of(runs).items():
        found = [read_measures(run.folder) for run in members]
        for name in dict.fromkeys(name for measures in found for name in measures):
            values = [measures[name] for measures in found if name in measures]
            mean, std = mean_and_std([value for value, _ in values])
            spread = {} if mean is None or std is None else {"low": mean - std, "high": mean + std}
            about = {"group": group, "measure": name, "value": mean, **spread, "runs": len(values)}
            rows.append({**about, "meaning": values[0][1]})
    if rows:
        meanings = {row["measure"]: row["meaning"] for row in rows}
        generating = {row["group"] for row in rows if row["measure"] == GENERATED}
        others = [group for group in dict.fromkeys(row["group"] for row in rows) if group not in generating]
        without = f" Without generated images: {', '.join(others)}." if others else ""
        yield Figure(
            name="privacy",
            title="Privacy",
            note="What somebody who has the final models learns about training images, mean over seeds; lines are one "
            f"standard deviation.{without}",
            section="Privacy",
            rows=rows,
            charts={(name,): _chart(rows, groups, name) for name in meanings},
            labels=("measure",),
            meanings={(name,): f"{name}: {meaning}." for name, meaning in meanings.items()},
            exported=[(name,) for name in meanings],
        )


def _chart(rows: Sequence[Row], groups: Groups, name: str) -> Chart:
    shown = base().transform_filter(alt.FieldEqualPredicate(field="measure", equal=name))
    x = alt.X("value:Q", title=name, scale=alt.Scale(zero=True))
    colour, tips = groups.colour(legend=None), ["group:N", alt.Tooltip("value:Q", format=".4~g"), "runs:Q"]
    own = [row for row in rows if row["measure"] == name]
    low = alt.X("low:Q", title=name)
    lines = shown.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, opacity=0.6)
    points = shown.mark_point(filled=True, size=80, opacity=1)
    return alt.layer(
        *([lines.encode(x=low, x2="high:Q", y=groups.axis(), color=colour)] if has(own, "low") else []),
        points.encode(x=x, y=groups.axis(), color=colour, shape=groups.shape(), tooltip=tips),
    ).properties(height=24 * len(groups.places) + 20)
