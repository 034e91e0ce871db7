"""Largest memory of whole runs, by phase and by process."""

import math
from collections.abc import Iterator, Sequence

import altair as alt

from fedvtc.reporting.charts.figure import Chart, Figure, Groups, Row, bars, base
from fedvtc.reporting.charts.heatmaps import MAX_WRITTEN, MIN_STEP, names_axis, rows_height
from fedvtc.reporting.charts.style import SEQUENTIAL
from fedvtc.reporting.results import RunResult, groups_of

PROCESSES = {
    "memory/peak_bytes": "clients",
    "memory/coordinator_peak_bytes": "coordinator",
    "memory/gpu_peak_bytes": "GPU",
}
"""Processes by the name of their largest memory."""
STARTS = {"GPU": "memory/gpu/", "process": "memory/"}
"""Starts of the names of the largest memory in a phase; a name belongs to the first that fits."""


def memory(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the figures of the largest memory by phase and by process; those without numbers are left out."""
    peaks = list(_peaks(runs))
    if peaks:
        places = sorted({row["memory"] for row in peaks}, key=list(STARTS).index, reverse=True)
        yield Figure(
            name="memory-phases",
            title="Memory by phase",
            note="Largest memory in GB during a phase, over the whole run and all seeds: resident memory of a process "
            "with all of its clients, or memory on a GPU. Phases of the server begin with server.",
            section="Costs",
            rows=peaks,
            charts={(place,): _heat_map(groups, [row for row in peaks if row["memory"] == place]) for place in places},
            labels=("memory",),
            exported=[(place,) for place in places],
        )
    whole = list(_whole(runs))
    if whole:
        processes = dict.fromkeys(row["part"] for row in whole)
        yield Figure(
            name="memory",
            title="Memory",
            note="Largest memory of a process that hosts clients, of the coordinator, or on a GPU, over rounds.",
            section="Costs",
            rows=whole,
            charts={(process,): _process_chart(groups, process) for process in processes},
            labels=("process",),
            exported=[(process,) for process in processes],
        )


def _peaks(runs: Sequence[RunResult]) -> Iterator[Row]:
    """Yields a row per group and phase."""
    for group, members in groups_of(runs).items():
        peaks: dict[tuple[str, str], float] = {}
        for run in members:
            for name, value in run.numbers.items():
                place = next((place for place, start in STARTS.items() if name.startswith(start)), None)
                if place is not None and name not in PROCESSES and math.isfinite(value):
                    key = place, name.removeprefix(STARTS[place])
                    peaks[key] = max(value / 1e9, peaks.get(key, 0.0))
        yield from (
            {"group": group, "memory": place, "phase": phase, "GB": peak} for (place, phase), peak in peaks.items()
        )


def _whole(runs: Sequence[RunResult]) -> Iterator[Row]:
    for name, process in PROCESSES.items():
        for group, members in groups_of(runs).items():
            peak = max(run.numbers.get(name, 0.0) for run in members)
            if peak:
                yield {"group": group, "part": process, "value": peak / 1e9}


def _heat_map(groups: Groups, rows: Sequence[Row]) -> Chart:
    """Returns a heat map of groups and phases, with its numbers where these have room."""
    groups = groups.having({row["group"] for row in rows})
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    low, high = min(row["GB"] for row in rows), max(row["GB"] for row in rows)
    shown = base().transform_filter(alt.FieldEqualPredicate(field="memory", equal=rows[0]["memory"]))
    x, y = names_axis("phase", phases, label_limit=150), groups.axis()
    legend = alt.Legend(title="GB", gradientLength=180)
    colour = alt.Color("GB:Q", scale=alt.Scale(scheme=SEQUENTIAL, domain=[low, high]), legend=legend)
    tips = ["group:N", "phase:N", alt.Tooltip("GB:Q", format=".4~g")]
    layers: list[alt.Chart] = [shown.mark_rect().encode(x=x, y=y, color=colour, tooltip=tips)]
    height = rows_height(len(groups.places))
    if len(phases) <= MAX_WRITTEN and height >= MIN_STEP * len(groups.places):
        # Dark texts on the light half of the colours.
        light = f"datum.GB > {low + 0.6 * (high - low)}"
        ink = alt.condition(light, alt.value("#000000"), alt.value("#ffffff"))
        texts = shown.mark_text(fontSize=11).encode(x=x, y=y, color=ink, text=alt.Text("GB:Q", format=".2f"))
        layers.append(texts)
    return alt.layer(*layers).properties(height=height)


def _process_chart(groups: Groups, process: str) -> Chart:
    shown = bars(groups, "GB").transform_filter(alt.FieldEqualPredicate(field="part", equal=process))
    chart: Chart = shown.encode(color=groups.colour(legend=None))
    return chart
