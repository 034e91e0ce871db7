"""Figures of classes: recall of every client and class, confusion matrices, and the partition.

Shape suffixes: K clients, C classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import DataError
from fedvtc.learning.data import read_partition
from fedvtc.reporting.charts.figure import Chart, Choice, Figure, Row, base
from fedvtc.reporting.charts.heatmaps import (
    MAX_CELLS,
    NONE_OF_ALL,
    clients_axis,
    every_nth,
    names_axis,
    names_of_all,
    names_scale,
    rows_height,
    share_colour,
    thinned,
)
from fedvtc.reporting.charts.style import SEQUENTIAL
from fedvtc.reporting.results import RunResult, firsts_first
from fedvtc.storage.confusions import evaluations, read_confusions
from fedvtc.storage.run_folder import PARTITION

MAX_BUBBLES = 1500
"""Cells of a partition that is drawn as bubbles; larger ones are a heat map."""
MAX_DOTS = 2000
EVERYONE = "all clients"


def classes(runs: Sequence[RunResult]) -> Iterator[Figure]:
    """Yields the figures of the confusion matrices of one run per group; none without confusion.npz."""
    counts_of = {run: counts for run in runs if (counts := _newest_counts(run)) is not None}
    if not counts_of:
        return
    firsts, others = firsts_first(list(counts_of))
    matrices = [(run, counts_of[run]) for run in [*firsts, *others]]
    every = max(every_nth(counts_KCC[:, 0].size) for _, counts_KCC in matrices)
    recall_rows: list[Row] = []
    recall_runs: dict[Any, str] = {}
    for run, counts_KCC in matrices:
        if recall_runs and len(recall_rows) + counts_KCC[:: every_nth(counts_KCC[:, 0].size), 0].size > MAX_CELLS:
            break
        recall_rows += _recall_rows(run, counts_KCC)
        recall_runs[run.name] = run.name
    num_clients = max(len(counts_KCC) for _, counts_KCC in matrices)
    names, is_fixed = names_of_all([_class_names(run, counts_KCC.shape[1]) for run, counts_KCC in matrices])
    yield Figure(
        name="recall",
        title="Recall of every client and class",
        note="Share of the test images of a class that a client's model classifies correctly, newest evaluation. "
        "A dot marks a class that the client has training images of." + thinned(every),
        section="Classes",
        rows=recall_rows,
        charts={(): _recall_chart(num_clients, names_axis("class", names, is_fixed=is_fixed), len(names))},
        choices=[Choice("run", "run", recall_runs)],
        exported_rows=[{"run": run.name} for run, _ in matrices if run in firsts and run.name in recall_runs][:8],
        has_groups=False,
    )
    yield _confusion_figure(matrices, firsts)


def partitions(runs: Sequence[RunResult]) -> Iterator[Figure]:
    """Yields the figure of the training images of every client and class; none without partition.npz."""
    known: dict[bytes, tuple[RunResult, NDArray[np.int64]]] = {}
    for run in runs:
        counts_KC = _partition(run)
        if counts_KC is not None:
            known.setdefault(counts_KC.tobytes(), (run, counts_KC))
    rows: list[Row] = []
    names: dict[Any, str] = {}
    for run, counts_KC in known.values():
        if names and len(rows) + np.count_nonzero(counts_KC) > MAX_CELLS:
            break
        name = f"seed {run.seed}" if len(known) == len({other.seed for other, _ in known.values()}) else run.name
        names[name] = name
        labels = _class_names(run, counts_KC.shape[1])
        shown_KC = counts_KC * (np.arange(len(counts_KC)) % every_nth(counts_KC.size) == 0)[:, None]
        rows += [
            {"partition": name, "client": int(client), "class": labels[label], "images": int(counts_KC[client, label])}
            for client, label in zip(*np.nonzero(shown_KC), strict=True)
        ]
    if rows:
        num_clients = max(len(counts_KC) for _, counts_KC in known.values())
        labels, is_fixed = names_of_all([_class_names(run, counts_KC.shape[1]) for run, counts_KC in known.values()])
        yield Figure(
            name="partition",
            title="Training images of every client",
            note="The area of a bubble, or the shade of a cell, is the number of training images of a class."
            + thinned(max(every_nth(counts_KC.size) for _, counts_KC in known.values())),
            section="Classes",
            rows=rows,
            charts={(): _partition_chart(num_clients, names_axis("class", labels, is_fixed=is_fixed), len(labels))},
            choices=[Choice("partition", "partition", names)],
            has_groups=False,
        )


def _newest_counts(run: RunResult) -> NDArray[np.uint32] | None:
    """Returns the confusion matrices of the newest kept evaluation; None if the file is missing or damaged."""
    with suppress(OSError, ValueError):
        ranked = [evaluated for evaluated in evaluations(run.folder) if not evaluated.predictor]
        if ranked:
            return read_confusions(run.folder, max(ranked, key=lambda found: (found.round is None, found.round or 0)))
    return None


def _partition(run: RunResult) -> NDArray[np.int64] | None:
    with suppress(DataError):
        parts, labels_N = read_partition(run.folder / PARTITION)
        num_classes = max(int(labels_N.max(initial=0)) + 1, len(run.class_names))
        return np.stack([np.bincount(labels_N[part], minlength=num_classes) for part in parts])
    return None


def _class_names(run: RunResult, num_classes: int) -> list[str]:
    return run.class_names if len(run.class_names) == num_classes else [str(label) for label in range(num_classes)]


def _recall_rows(run: RunResult, counts_KCC: NDArray[np.uint32]) -> Iterator[Row]:
    recall_KC = counts_KCC.diagonal(axis1=1, axis2=2) / counts_KCC.sum(axis=2).clip(1)
    tested_C = counts_KCC[0].sum(axis=1) > 0
    held_KC = _partition(run)
    names = _class_names(run, recall_KC.shape[1])
    for client in range(0, len(recall_KC), every_nth(recall_KC.size)):
        recall_C = recall_KC[client]
        for label in np.nonzero(tested_C)[0].tolist():
            is_held = held_KC is not None and held_KC.shape == recall_KC.shape and held_KC[client, label] > 0
            words = {"run": run.name, "client": client, "class": names[label]}
            yield {**words, "recall": round(float(recall_C[label]), 4), "held": "yes" if is_held else ""}


def _recall_chart(num_clients: int, x: alt.X, num_classes: int) -> Chart:
    y = clients_axis(num_clients)
    tips = ["client:Q", "class:N", alt.Tooltip("recall:Q", format=".3f"), "held:N"]
    colour = share_colour("recall", "recall")
    layers: list[alt.Chart] = [base().mark_rect().encode(x=x, y=y, color=colour, tooltip=tips)]
    if num_clients * num_classes <= MAX_DOTS:
        dots = base().transform_filter("datum.held == 'yes'")
        layers.append(
            dots.mark_circle(size=14, color="#ffffff", opacity=0.9, stroke="#000000", strokeWidth=0.6).encode(x=x, y=y)
        )
    return alt.layer(*layers).properties(height=rows_height(num_clients))


def _confusion_figure(matrices: Sequence[tuple[RunResult, NDArray[np.uint32]]], firsts: Sequence[RunResult]) -> Figure:
    num_clients = max(len(counts_KCC) for _, counts_KCC in matrices)
    num_classes = max(counts_KCC.shape[1] for _, counts_KCC in matrices)
    left_out = ""
    room_for = MAX_CELLS // ((num_clients + 1) * num_classes**2)
    if len(firsts) <= room_for < len(matrices):
        # Every client of one run per group, rather than some clients of every run.
        left_out = " The page has room for one run per group only; confusion.npz of the other runs has the others."
        matrices = [(run, counts_KCC) for run, counts_KCC in matrices if run in firsts]
    num_shown = max(0, MAX_CELLS // len(matrices) // num_classes**2 - 1)
    rows: list[Row] = []
    runs: dict[Any, str] = {}
    for run, counts_KCC in matrices:
        if runs and len(rows) > MAX_CELLS:
            break
        runs[run.name] = run.name
        names = _class_names(run, counts_KCC.shape[1])
        parts = {EVERYONE: counts_KCC.sum(axis=0)}
        parts |= {label: counts_KCC[client] for label, client in _shown_clients(counts_KCC, num_shown).items()}
        for label, counts_CC in parts.items():
            share_CC = counts_CC / counts_CC.sum(axis=1, keepdims=True).clip(1)
            for true, predicted in zip(*np.nonzero(counts_CC), strict=True):
                words = {"run": run.name, "client": label, "true": names[true], "predicted": names[predicted]}
                rows.append(
                    {
                        **words,
                        "images": int(counts_CC[true, predicted]),
                        "share": round(float(share_CC[true, predicted]), 4),
                    }
                )
    options = {EVERYONE: EVERYONE} | {
        label: label for _, counts in matrices for label in _shown_clients(counts, num_shown)
    }
    sort, is_fixed = names_of_all([_class_names(run, counts_KCC.shape[1]) for run, counts_KCC in matrices])
    axis = alt.Axis(ticks=False, domain=False, labelOverlap=True, labelLimit=90)
    x = names_axis("predicted", sort, is_fixed=is_fixed).title("predicted class")
    chart = (
        base()
        .mark_rect()
        .encode(
            x=x,
            y=alt.Y("true:N", sort=sort, title="true class", scale=names_scale(sort, is_fixed), axis=axis),
            color=share_colour("share", "share of the true class"),
            tooltip=["true:N", "predicted:N", "images:Q", alt.Tooltip("share:Q", format=".3f")],
        )
    )
    return Figure(
        name="confusion",
        title="Confusion matrices",
        note="Share of the test images of a class (row) that are classified as another class (column), at the newest "
        "evaluation: of all clients together, or of one client."
        + (
            left_out if num_shown >= num_clients else " The page has room for some clients only; confusion.npz has all."
        ),
        section="Classes",
        rows=rows,
        # Rows without images are left out of the table, and so have the colour of the ground.
        charts={
            (): chart.properties(
                height=int(min(640, max(220, 30 * num_classes))), view=alt.ViewBackground(fill=NONE_OF_ALL)
            )
        },
        choices=[Choice("run", "run", runs), Choice("client", "client", options)],
        exported_rows=[{"run": run.name, "client": EVERYONE} for run in firsts if run.name in runs][:8],
        has_groups=False,
    )


def _shown_clients(counts_KCC: NDArray[np.uint32], num_shown: int) -> dict[str, int]:
    """Returns the clients that have room by their label: all, or the worst, the median and the best client."""
    if num_shown >= len(counts_KCC):
        return {f"client {client}": client for client in range(len(counts_KCC))}
    order = counts_KCC.trace(axis1=1, axis2=2).argsort(kind="stable").tolist()
    named = {"the worst client": order[0], "the median client": order[len(order) // 2], "the best client": order[-1]}
    return named if num_shown >= len(named) else {}


def _partition_chart(num_clients: int, x: alt.X, num_classes: int) -> Chart:
    y = clients_axis(num_clients)
    tips = ["client:Q", "class:N", "images:Q"]
    if num_clients * num_classes <= MAX_BUBBLES:
        size = alt.Size(
            "images:Q",
            scale=alt.Scale(rangeMin=4, rangeMax=280, zero=True),
            legend=alt.Legend(title="images", tickCount=3),
        )
        chart: Chart = base().mark_circle(color="#0072b2", opacity=0.8).encode(x=x, y=y, size=size, tooltip=tips)
    else:
        shade = alt.Color(
            "images:Q",
            scale=alt.Scale(scheme=SEQUENTIAL, type="sqrt"),
            legend=alt.Legend(title="images", gradientLength=180),
        )
        chart = base().mark_rect().encode(x=x, y=y, color=shade, tooltip=tips)
    return chart.properties(height=rows_height(num_clients))
