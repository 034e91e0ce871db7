"""Differences between groups, paired by seed."""

from collections.abc import Iterator, Sequence

import altair as alt

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.charts.figure import Chart, Choice, Figure, Groups, Row, base, has, once
from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.reporting.seeds import LEVEL, paired_difference


def differences(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figure of the differences of every group from another; none for a single group."""
    members = groups_of(runs)
    if len(members) < 2:
        return
    rows: list[Row] = []
    for label, key in HEADLINE_METRICS.items():
        values = {
            group: {run.seed: value for run in own if (value := run.numbers.get(key)) is not None}
            for group, own in members.items()
        }
        for base_group, theirs in values.items():
            for group, ours in values.items():
                found = paired_difference(ours, theirs) if group != base_group else None
                if found is not None:
                    spread = {} if found.low is None else {"low": found.low, "high": found.high}
                    words = {"group": group, "from": base_group, "metric": label}
                    rows.append({**words, "difference": found.mean, **spread, "pairs": found.num_pairs})
    if not rows:
        return
    bases = list(dict.fromkeys(row["from"] for row in rows))
    # A comparison usually starts from clients that train alone.
    bases.sort(key=lambda group: not group.startswith("Local"))
    yield Figure(
        name="differences",
        title="Differences paired by seed",
        note=f"Mean difference from a group over the seeds that both have, with its {LEVEL:.0%} confidence interval by "
        "Student's t; without an interval there is one common seed only.",
        section="Accuracy",
        rows=rows,
        charts={(label,): _chart(rows, groups, label) for label in HEADLINE_METRICS},
        labels=("metric",),
        choices=[Choice("difference from", "from", {group: group for group in bases})],
    )


def _chart(rows: Sequence[Row], groups: Groups, label: str) -> Chart:
    shown = base().transform_filter(alt.FieldEqualPredicate(field="metric", equal=label))
    title = f"difference of {label}"
    x = alt.X("difference:Q", title=title, axis=alt.Axis(format="+.3~f"))
    tips = ["group:N", "from:N", alt.Tooltip("difference:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f")]
    tips += [alt.Tooltip("high:Q", format="+.4f"), "pairs:Q"]
    colour = groups.colour(legend=None)
    low = alt.X("low:Q", title=title)
    zero = once().mark_rule(strokeDash=[3, 3], opacity=0.6).encode(x=alt.datum(0))
    lines = shown.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    points = shown.mark_point(filled=True, size=70, opacity=1)
    return alt.layer(
        zero,
        *([lines.encode(x=low, x2="high:Q", y=groups.axis(), color=colour)] if has(rows, "low") else []),
        points.encode(x=x, y=groups.axis(), color=colour, shape=groups.shape(), tooltip=tips),
    ).properties(height=24 * len(groups.places) + 20)
