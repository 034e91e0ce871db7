"""Curves over rounds, megabytes and seconds: evaluations and losses, mean over seeds with a band."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from fedvtc.learning.metrics import HEADLINE_METRICS, MEASURED
from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, base, field_name, has
from fedvtc.reporting.results import RunResult, groups_of, number
from fedvtc.reporting.run_numbers import ACCURACY
from fedvtc.reporting.seeds import mean_and_std

MAX_POINTS = 200
"""Points of a curve; longer runs show evenly spaced rounds."""
MAX_VISIBLE = 25
"""Points of a curve that are drawn."""
FEW_ROUNDS = 4
BAND_OPACITY = 0.15
MANY_GROUPS = 8
"""More bands than this are faint, because bands that lie on each other hide the curves."""
AXES = {"rounds": "round", "MB": "MB", "seconds": "seconds"}
TITLES = {"round": "round", "MB": "MB sent and received, all clients", "seconds": "seconds of wall clock"}
OTHERS = (*MEASURED, "loss/", "bytes/", "incidents/", "clients/", "round")
"""Starts of numbers that have figures of their own, or are none of a model."""
HEADLINES = {key: label for label, key in HEADLINE_METRICS.items()}
ENDS = {"mean": "", "low": " low", "high": " high"}
BYTES = ("bytes/up/", "bytes/down/")


def curves(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figures of evaluations and of losses; none without records."""
    names = list(dict.fromkeys(key for run in runs for record in run.records for key in record))
    numbers = [name for name in names if any(number(record.get(name)) is not None for record in _all_records(runs))]
    metrics = sorted((name for name in numbers if not name.startswith(OTHERS)), key=_order)
    losses = sorted(name for name in numbers if name.startswith("loss/"))
    if metrics:
        rows = _rows(runs, metrics)
        yield Figure(
            name="curves",
            title="Curves",
            note="Mean over seeds; the band is one standard deviation. A diamond is the final evaluation, after the "
            "last step of the method.",
            section="Accuracy",
            rows=rows,
            charts={
                (_label(name), over): _curve(rows, groups, field_name(name), axis, _label(name))
                for name in metrics
                for over, axis in AXES.items()
            },
            labels=("metric", "over"),
            exported=[(_label(name), "rounds") for name in metrics if name in HEADLINES]
            + [(_label(ACCURACY), over) for over in ("MB", "seconds") if ACCURACY in metrics],
        )
    if losses:
        rows = _rows(runs, losses)
        yield Figure(
            name="losses",
            title="Losses",
            note="Every loss term of the methods, mean over participants, then over seeds; the band is one standard "
            "deviation.",
            section="Training",
            rows=rows,
            charts={
                (name.removeprefix("loss/"), over): _curve(rows, groups, field_name(name), axis, name)
                for name in losses
                for over, axis in AXES.items()
            },
            labels=("term", "over"),
            exported=[(name.removeprefix("loss/"), "rounds") for name in losses],
        )


def megabytes_of(record: Mapping[str, Any]) -> float:
    """Returns the megabytes that all clients sent and received in a record."""
    return sum(number(value) or 0.0 for key, value in record.items() if key.startswith(BYTES)) / 1e6


def totals(run: RunResult) -> Iterator[tuple[Mapping[str, Any], float, float]]:
    """Yields each record of a run with the megabytes and seconds since its first round."""
    megabytes = seconds = 0.0
    for record in run.records:
        megabytes += megabytes_of(record)
        seconds += number(record.get("time/round")) or 0.0
        yield record, megabytes, seconds


def _all_records(runs: Sequence[RunResult]) -> Iterator[Mapping[str, Any]]:
    for run in runs:
        yield from run.records


def _order(name: str) -> tuple[int, str]:
    return (list(HEADLINES).index(name), "") if name in HEADLINES else (len(HEADLINES), name)


def _label(name: str) -> str:
    return HEADLINES.get(name, name)


def _rows(runs: Sequence[RunResult], metrics: Sequence[str]) -> list[Row]:
    """Returns a row per group and record: means over the seeds that have the record."""
    rows: list[Row] = []
    for group, members in groups_of(runs).items():
        at: dict[tuple[bool, int], list[tuple[Mapping[str, Any], float, float]]] = {}
        for run in members:
            for point in totals(run):
                at.setdefault((point[0]["phase"] == "final", point[0]["round"]), []).append(point)
        for key in _thinned(at, metrics):
            points, (is_final, round) = at[key], key
            row: dict[str, Any] = {
                "group": group,
                "phase": "final" if is_final else "round",
                "round": round,
                "MB": mean_and_std([megabytes for _, megabytes, _ in points])[0],
                "seconds": mean_and_std([seconds for _, _, seconds in points])[0],
                "seeds": len(points),
            }
            for metric in metrics:
                values = [value for record, _, _ in points if (value := number(record.get(metric))) is not None]
                mean, std = mean_and_std(values)
                name = field_name(metric)
                row[name] = mean
                if mean is not None and std is not None:
                    row |= {f"{name} low": mean - std, f"{name} high": mean + std}
            if any(row.get(field_name(metric)) is not None for metric in metrics):
                rows.append(row)
    return rows


def _thinned(at: Mapping[tuple[bool, int], Sequence[Any]], metrics: Sequence[str]) -> list[tuple[bool, int]]:
    """Returns the final record and at most `MAX_POINTS` of the rounds that have a metric."""
    having = sorted(
        key for key, points in at.items() if any(point[0].get(name) is not None for point in points for name in metrics)
    )
    finals = [key for key in having if key[0]]
    rounds = [key for key in having if not key[0]]
    step = -(-len(rounds) // MAX_POINTS) or 1
    # From the end, so that the last round stays.
    return [*reversed(rounds[::-1][::step]), *finals]


def _axis(axis: str, rounds: Sequence[int]) -> alt.Axis:
    if axis != "round":
        return alt.Axis(labelFlush=True)
    # Vega draws halves between few rounds.
    steps = {"values": rounds} if len(rounds) <= FEW_ROUNDS else {"tickMinStep": 1}
    return alt.Axis(labelFlush=True, format="d", **steps)


def _curve(rows: Sequence[Row], groups: Groups, name: str, axis: str, title: str) -> Chart:
    """Returns the curve of one metric over one axis."""
    drawn = sorted({row["round"] for row in rows})
    x = alt.X(field=axis, type="quantitative", title=TITLES[axis], axis=_axis(axis, drawn))
    y = alt.Y(field=name, type="quantitative", title=title, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("group:N"),
        alt.Tooltip("phase:N"),
        alt.Tooltip(field=name, type="quantitative", format=".4~g", title=title),
        *(alt.Tooltip(field=axis, type="quantitative", format=",.4~g") for axis in AXES.values()),
        alt.Tooltip("seeds:Q"),
    ]
    low, high = f"{name} low", f"{name} high"
    groups = groups.having({row["group"] for row in rows if row.get(name) is not None})
    shown = base().transform_filter(f"isValid(datum[{name!r}])")
    rounds = shown.transform_filter("datum.phase == 'round'")
    colour = groups.colour()
    layers = []
    if has([row for row in rows if row["phase"] == "round"], low):
        band = rounds.transform_filter(f"isValid(datum[{low!r}])").mark_area(
            opacity=BAND_OPACITY if len(groups.places) <= MANY_GROUPS else BAND_OPACITY / 3
        )
        low_y, high_y = alt.Y(field=low, type="quantitative", title=title), alt.Y2(field=high)
        layers.append(band.encode(x=x, y=low_y, y2=high_y, color=colour))
    if has([row for row in rows if row["phase"] == "round"], name):
        # Invisible points show their numbers to the pointer; a few points are shown, for a curve may have one only.
        is_short = len(drawn) <= MAX_VISIBLE
        # With the final evaluation, so that the reader sees which curve a diamond belongs to.
        line = shown.mark_line(strokeWidth=2)
        points = rounds.mark_point(size=25 if is_short else 60, opacity=float(is_short), filled=True)
        layers.append(line.encode(x=x, y=y, color=colour, strokeDash=groups.dash()))
        layers.append(points.encode(x=x, y=y, color=colour, tooltip=tooltip))
    if has([row for row in rows if row["phase"] == "final"], name):
        final = shown.transform_filter("datum.phase == 'final'").mark_point(
            shape="diamond", size=110, filled=True, stroke="#ffffff", strokeWidth=1, opacity=1
        )
        layers.append(final.encode(x=x, y=y, color=colour, tooltip=tooltip))
    return alt.layer(*layers).properties(height=320)
