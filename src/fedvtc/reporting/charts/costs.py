"""Costs up to an accuracy: rounds, bytes and seconds."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, base
from fedvtc.reporting.results import RunResult, groups_of, number
from fedvtc.reporting.run_numbers import ACCURACY, TARGET_BYTES, TARGET_ROUNDS, TARGET_SECONDS, numbers_of

SHARES_OF_BEST = (0.5, 0.75, 0.9)
"""Targets of a report without given targets, as shares of the best accuracy."""
MEASURES = {"rounds": "rounds", "MB": "MB sent and received, all clients", "seconds": "seconds of wall clock"}


def costs(runs: Sequence[RunResult], groups: Groups, targets: Sequence[float]) -> Iterator[Figure]:
    """Yields the figure of the costs up to an accuracy; none if no run reaches a target.

    Args:
        runs: all runs of the report.
        groups: the groups with their colours.
        targets: mean accuracies to reach; empty takes shares of the best accuracy.
    """
    targets = targets or _default_targets(runs)
    rows: list[Row] = []
    for group, members in groups_of(runs).items():
        for target in targets:
            reached = [cost for run in members if (cost := _cost(run, target)) is not None]
            row: dict[str, Any] = {
                "group": group,
                "target": f"{target:g}",
                "reached": f"{len(reached)} of {len(members)}",
            }
            for place, measure in enumerate(MEASURES):
                row[measure] = statistics.fmean(cost[place] for cost in reached) if reached else None
            rows.append(row)
    if any(row["rounds"] is not None for row in rows):
        yield Figure(
            name="cost-to-target",
            title="Cost to reach an accuracy",
            note="Up to the first evaluation whose mean accuracy reaches the target; mean over the runs that reach the "
            "target, whose number stands beside the bar.",
            section="Costs",
            rows=rows,
            charts={
                (f"{target:g}", measure): _target_chart(groups, f"{target:g}", measure)
                for target in targets
                for measure in MEASURES
            },
            labels=("accuracy", "cost"),
            exported=[(f"{target:g}", measure) for target in targets[-1:] for measure in MEASURES],
        )


def _default_targets(runs: Sequence[RunResult]) -> list[float]:
    found = [value for run in runs for record in run.records if (value := number(record.get(ACCURACY))) is not None]
    return sorted({round(share * max(found), 2) for share in SHARES_OF_BEST}) if found else []


def _cost(run: RunResult, target: float) -> tuple[float, float, float] | None:
    """Returns rounds, megabytes and seconds up to the first evaluation that reaches a target; None if none does."""
    numbers = numbers_of(run.records, target) if run.records else {}
    if TARGET_ROUNDS not in numbers:
        return None
    return numbers[TARGET_ROUNDS], numbers[TARGET_BYTES] / 1e6, numbers[TARGET_SECONDS]


def _target_chart(groups: Groups, target: str, measure: str) -> Chart:
    shown = base().transform_filter(alt.FieldEqualPredicate(field="target", equal=target))
    x = alt.X(field=measure, type="quantitative", title=MEASURES[measure], scale=alt.Scale(zero=True))
    tips = [
        "group:N",
        "reached:N",
        *(alt.Tooltip(field=name, type="quantitative", format=",.4~g") for name in MEASURES),
    ]
    bars = shown.mark_bar(height={"band": 0.7}).encode(
        x=x, y=groups.axis(), color=groups.colour(legend=None), tooltip=tips
    )
    shown = shown.transform_calculate(at=f"isValid(datum[{measure!r}]) ? datum[{measure!r}] : 0")
    texts = shown.mark_text(align="left", dx=4).encode(x="at:Q", y=groups.axis(), text="reached:N")
    return alt.layer(bars, texts).properties(height=22 * len(groups.places) + 20)
