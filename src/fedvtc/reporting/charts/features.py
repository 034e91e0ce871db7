"""Projections of features of real and generated images over clients, as `fedvtc features` computed them."""

from collections.abc import Iterator, Sequence

import altair as alt

from fedvtc.reporting.charts.figure import Chart, Choice, Figure, Row, base
from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.storage.features import read_points

MAX_POINTS = 12_000
"""Points of all runs; further runs are left out, which keeps the page small."""
PROJECTIONS = {"t-SNE": "tsne", "PCA": "pca"}
COLOURS = {"class": "class", "images": "images", "client": "client", "backbone": "backbone"}
MANY_VALUES = 10
"""More values than this share colours of a wheel."""


def features(runs: Sequence[RunResult]) -> Iterator[Figure]:
    """Yields the figure of projected features of one run per group; none without points."""
    rows: list[Row] = []
    names: list[str] = []
    for members in groups_of(runs).values():
        run, points = next(((run, points) for run in members if (points := read_points(run.folder))), (None, []))
        if run is None or (rows and len(rows) + len(points) > MAX_POINTS):
            continue
        names.append(run.name)
        for point in points:
            place = {f"{name} {axis}": point[f"{key}/{axis}"] for name, key in PROJECTIONS.items() for axis in "xy"}
            about = {name: point[name] for name in ("models", "images", "client", "backbone", "class")}
            rows.append({"run": run.name, **about, **place})
    if not rows:
        return
    # A method without a last step has final models only, which are those after the step.
    stages = [stage for stage in ("after", "before") if any(row["models"] == stage for row in rows)]
    yield Figure(
        name="features",
        title="Features of real and generated images",
        note="A point is a test image or a generated image, as the model of a client sees it. All points of a run are "
        "projected together: all clients, and the models before and after the last step of the method, such as "
        "fine-tuning. Distances between far points mean little in t-SNE.",
        section="Features",
        rows=rows,
        charts={
            (projection, stage, colour): _chart(rows, projection, stage, colour)
            for projection in PROJECTIONS
            for stage in stages
            for colour in COLOURS
        },
        labels=("projection", "models", "colour"),
        choices=[Choice("run", "run", {name: name for name in names})],
        exported=[(projection, stage, "class") for projection in PROJECTIONS for stage in stages],
        exported_rows=[{"run": name} for name in names[:8]],
        has_groups=False,
    )


def _chart(rows: Sequence[Row], projection: str, stage: str, colour: str) -> Chart:
    values = list(dict.fromkeys(row[colour] for row in rows))
    scheme = alt.Scale(domain=values, scheme="tableau10" if len(values) <= MANY_VALUES else "sinebow")
    legend = alt.Legend(symbolOpacity=1) if len(values) <= 2 * MANY_VALUES else None
    images = list(dict.fromkeys(row["images"] for row in rows))
    x, y = (
        alt.Axis(title=f"{projection} {number}", labels=False, ticks=False, domain=False, grid=False)
        for number in (1, 2)
    )
    chart: Chart = (
        base()
        .transform_filter(alt.FieldEqualPredicate(field="models", equal=stage))
        .mark_point(size=32, opacity=0.75, filled=True)
        .encode(
            x=alt.X(field=f"{projection} x", type="quantitative", axis=x, scale=alt.Scale(zero=False)),
            y=alt.Y(field=f"{projection} y", type="quantitative", axis=y, scale=alt.Scale(zero=False)),
            color=alt.Color(f"{colour}:N", sort=values, scale=scheme, legend=legend),
            shape=alt.Shape("images:N", scale=alt.Scale(domain=images, range=["circle", "cross"]), legend=alt.Legend()),
            tooltip=["images:N", "class:N", "client:Q", "backbone:N"],
        )
    )
    return chart.properties(height=420)
