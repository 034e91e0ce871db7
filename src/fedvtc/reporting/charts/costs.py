"""Costs: seconds by phase, bytes by kind, memory, and costs up to an accuracy."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from fedvtc.reporting.charts.curves import totals
from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, base
from fedvtc.reporting.results import RunResult, groups_of, number
from fedvtc.reporting.run_numbers import ACCURACY, TARGET_BYTES, TARGET_ROUNDS, TARGET_SECONDS, numbers_of

NO_PHASES = ("time/client", "time/round", "time/makespan", "time/makespan/predicted")
"""Seconds that hold those of other phases, or of no phase."""
SHARES_OF_BEST = (0.5, 0.75, 0.9)
"""Targets of a report without given targets, as shares of the best accuracy."""
MEASURES = {"rounds": "rounds", "MB": "MB sent and received, all clients", "seconds": "seconds of wall clock"}
PHASE_COLOURS = alt.Scale(scheme="tableau20")


def costs(runs: Sequence[RunResult], groups: Groups, targets: Sequence[float]) -> Iterator[Figure]:
    """Yields the figures of costs; none without records.

    Args:
        runs: all runs of the report.
        groups: the groups with their colours.
        targets: mean accuracies to reach; empty takes shares of the best accuracy.
    """
    yield from _to_target(runs, groups, targets or _default_targets(runs))
    seconds = list(_sums(runs, _seconds_of))
    if seconds:
        yield _bars(
            groups,
            seconds,
            name="time",
            title="Seconds by phase",
            note="Sum over the whole run, mean over seeds. Seconds of clients are summed over participants, so they "
            "exceed the wall clock if clients work in parallel; evaluate is wall clock.",
            unit="seconds",
        )
    for way, title in (("up", "Bytes sent by clients"), ("down", "Bytes received by clients")):
        rows = list(_sums(runs, lambda record, way=way: _megabytes_of(record, way)))
        if rows:
            note = "Megabytes of all clients over the whole run by kind of payload, mean over seeds."
            yield _bars(groups, rows, name=f"bytes-{way}", title=title, note=note, unit="MB")
    memory = list(_memory(runs))
    if memory:
        yield _bars(
            groups,
            memory,
            name="memory",
            title="Memory",
            note="Largest resident memory of a process that hosts clients, over all rounds and seeds.",
            unit="GB",
        )


def _default_targets(runs: Sequence[RunResult]) -> list[float]:
    found = [
        value for run in runs for record, _, _ in totals(run) if (value := number(record.get(ACCURACY))) is not None
    ]
    return sorted({round(share * max(found), 2) for share in SHARES_OF_BEST}) if found else []


def _to_target(runs: Sequence[RunResult], groups: Groups, targets: Sequence[float]) -> Iterator[Figure]:
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


def _seconds_of(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key.removeprefix("time/"): value
        for key in record
        if key.startswith("time/") and key not in NO_PHASES and (value := number(record[key])) is not None
    }


def _megabytes_of(record: Mapping[str, Any], way: str) -> dict[str, float]:
    prefix = f"bytes/{way}/"
    return {
        key.removeprefix(prefix): value / 1e6
        for key in record
        if key.startswith(prefix) and (value := number(record[key])) is not None
    }


def _sums(runs: Sequence[RunResult], parts_of: Any) -> Iterator[Row]:
    """Yields a row per group and part: the sum over a run's records, mean over the runs."""
    for group, members in groups_of(runs).items():
        sums: dict[str, float] = {}
        for run in members:
            for record, _, _ in totals(run):
                for part, value in parts_of(record).items():
                    sums[part] = sums.get(part, 0.0) + value / len(members)
        for part, value in sums.items():
            yield {"group": group, "part": part, "value": value}


def _memory(runs: Sequence[RunResult]) -> Iterator[Row]:
    for group, members in groups_of(runs).items():
        peaks = [number(record.get("memory/peak_bytes")) or 0.0 for run in members for record, _, _ in totals(run)]
        if any(peaks):
            yield {"group": group, "part": "peak", "value": max(peaks) / 1e9}


def _bars(groups: Groups, rows: Sequence[Row], *, name: str, title: str, note: str, unit: str) -> Figure:
    parts = list(dict.fromkeys(row["part"] for row in rows))
    legend = alt.Legend(columns=4) if len(parts) > 1 else None
    chart = (
        base()
        .mark_bar(height={"band": 0.7})
        .encode(
            x=alt.X("value:Q", title=unit, stack="zero"),
            y=groups.axis(),
            color=alt.Color("part:N", sort=parts, scale=PHASE_COLOURS, legend=legend),
            tooltip=["group:N", "part:N", alt.Tooltip("value:Q", format=",.4~g", title=unit)],
        )
    )
    return Figure(
        name=name,
        title=title,
        note=note,
        section="Costs",
        rows=rows,
        charts={(): chart.properties(height=22 * len(groups.places) + 20)},
    )
