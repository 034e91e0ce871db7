"""The final models on other test sets, as `fedvtc evaluate` measured them."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import altair as alt

from fedvtc.reporting.charts.clients import METRICS
from fedvtc.reporting.charts.figure import Chart, Choice, Figure, Groups, Row, base
from fedvtc.reporting.charts.heatmaps import (
    MAX_CELLS,
    MAX_WRITTEN,
    MIN_STEP,
    clients_axis,
    names_axis,
    rows_height,
    share_colour,
)
from fedvtc.reporting.results import RunResult, firsts_first
from fedvtc.storage.evaluations import read_evaluations

LABELS = {column: METRICS[column] for column in ("accuracy", "accuracy/held", "accuracy/missing", "recall/worst")}


def evaluations(runs: Sequence[RunResult], groups: Groups) -> Iterator[Figure]:
    """Yields the heat maps of groups and of clients by test set; none without evaluations.csv."""
    by_run = [(run, rows) for part in firsts_first(runs) for run in part if (rows := _rows(run))]
    if not by_run:
        return
    everything = [row for _, rows in by_run for row in rows]
    labels = [label for label in LABELS.values() if any(row.get(label) is not None for row in everything)]
    sets = list(dict.fromkeys(row["test set"] for row in everything))
    yield Figure(
        name="test-sets",
        title="Other test sets",
        note="The final models on changed test images or on other data, mean over clients and seeds; test is the run's "
        "own test set.",
        section="Evaluations",
        rows=list(_means(everything, labels)),
        charts={(label,): _chart("group", groups.axis(), sets, label, len(groups.places)) for label in labels},
        labels=("metric",),
        exported=[(label,) for label in labels],
    )
    shown = dict(by_run[:1])
    for run, rows in by_run[1:]:
        if sum(map(len, shown.values())) + len(rows) <= MAX_CELLS:
            shown[run] = rows
    num_clients = max(len({row["client"] for row in rows}) for rows in shown.values())
    yield Figure(
        name="test-sets-clients",
        title="Other test sets, by client",
        note="The final model of every client of one run on each test set.",
        section="Evaluations",
        rows=[row for rows in shown.values() for row in rows],
        charts={(label,): _chart("client", clients_axis(num_clients), sets, label, num_clients) for label in labels},
        labels=("metric",),
        choices=[Choice("run", "run", {run.name: run.name for run in shown})],
        exported_rows=[{"run": run.name} for run in list(shown)[:8]],
        has_groups=False,
    )


def _rows(run: RunResult) -> list[Row]:
    """Returns a row per client and test set; none if evaluations.csv is missing or damaged."""
    rows: list[Row] = []
    with suppress(OSError, ValueError):
        for row in read_evaluations(run.folder):
            values = {label: float(row[column]) for column, label in LABELS.items() if row.get(column)}
            about = {"run": run.name, "group": run.group, "client": int(row["client"]), "test set": row["on"]}
            rows.append({**about, **values})
    return rows


def _means(rows: Sequence[Row], labels: Sequence[str]) -> Iterator[Row]:
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["group"], row["test set"]), []).append(row)
    for (group, name), members in cells.items():
        found: dict[str, Any] = {"group": group, "test set": name, "models": len(members)}
        for label in labels:
            values = [row[label] for row in members if label in row]
            found[label] = statistics.fmean(values) if values else None
        yield found


def _chart(field: str, y: alt.Y, sets: Sequence[str], label: str, num_rows: int) -> Chart:
    tips = [alt.Tooltip(f"{field}:N"), alt.Tooltip("test set:N")]
    value = alt.Tooltip(field=label, type="quantitative", format=".4f")
    cells = base().mark_rect().encode(x=names_axis("test set", sets), y=y, color=share_colour(label, label))
    cells = cells.encode(tooltip=[*tips, value])
    layers: list[alt.Chart] = [cells]
    height = rows_height(num_rows)
    if len(sets) <= MAX_WRITTEN and height >= MIN_STEP * num_rows:
        # Dark texts on the light half of the colours.
        ink = alt.condition(f"datum[{label!r}] > 0.6", alt.value("#000000"), alt.value("#ffffff"))
        texts = base().mark_text(fontSize=11).encode(x=names_axis("test set", sets), y=y, color=ink)
        layers.append(texts.encode(text=alt.Text(field=label, type="quantitative", format=".2f")))
    return alt.layer(*layers).properties(height=height)
