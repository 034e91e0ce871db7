"""Evaluates clients on test sets.

Shapes: C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.data.test_sets import test_set
from fedvtc.learning.metrics import evaluate_confusion

OWN = "test"
"""Name of the run's own test set."""


def evaluate(run: FinishedRun, names: Sequence[str], *, clients: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Returns a row per client and test set: `client`, `backbone`, `on`, and the metrics of clients.csv.

    Args:
        run: the finished run.
        names: test sets, as `test_set` reads them; the run's own is added.
        clients: numbers of clients; None evaluates all clients.

    Raises:
        DataError: a test set is absent or does not fit.
    """
    dataset = run.population.dataset
    sets = {OWN: dataset.test}
    sets |= {name: test_set(name, dataset, run.config.data, run.config.run.seed) for name in names}
    rows: list[dict[str, Any]] = []
    for client in run.clients(clients):
        ranked, predictor = next(iter(run.predictors(client).items()))
        counts_C = run.population.class_counts_KC[client.id]
        for name, images in sets.items():
            confusion_CC = client.confusions(images, {ranked: predictor})[ranked]
            about = {"client": client.id, "backbone": client.backbone_name, "on": name}
            rows.append({**about, **evaluate_confusion(confusion_CC, counts_C)})
    return rows


def matrix_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Returns accuracies by client and test set, with their means in the last row."""
    names = list(dict.fromkeys(row["on"] for row in rows))
    accuracy = {(row["client"], row["on"]): row["accuracy"] for row in rows}
    table = Table("client", "backbone", *names)
    for client, backbone in dict.fromkeys((row["client"], row["backbone"]) for row in rows):
        table.add_row(str(client), backbone, *(f"{accuracy[client, name]:.3f}" for name in names))
    means = [np.mean([row["accuracy"] for row in rows if row["on"] == name]) for name in names]
    table.add_section()
    table.add_row("mean", "", *(f"{mean:.3f}" for mean in means))
    return table
