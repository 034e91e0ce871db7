"""Ablations of FedVTC and FedVTC+ on an experiment: one changed setting at a time, over seeds.

    FEDVTC_DATA=data python benchmarks/ablation.py --csv ablation.csv
    python benchmarks/ablation.py --experiment digits --methods fedvtc_plus --csv digits.csv \\
        evaluate.validation_share=0.2

Each line of the table differs from its method file only in the settings that the line names. Lines that differ only in
fine-tuning share one trained federation, and fine-tune copies of its clients. With `evaluate.validation_share` the
column `validation` has the accuracy on images of the clients that no client trains on: choose settings by this column.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Method, Task, build, config_classes
from fedvtc.learning.metrics import VALIDATION, aggregate, evaluate_confusion
from fedvtc.learning.population import Population
from fedvtc.learning.server import Server
from fedvtc.runtime.device import limit_threads

CONF = Path(__file__).parents[1] / "conf"
COLUMNS = {
    "mean": "test/accuracy/mean",
    "worst": "test/accuracy/min",
    "held": "test/accuracy/held/mean",
    "missing": "test/accuracy/missing/mean",
    "validation": VALIDATION,
}


@dataclass(frozen=True)
class Line:
    """One line of the table: a method file, and the changed keys of training and of fine-tuning."""

    method: str
    name: str
    training: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()


LINES = [
    Line("fedvtc", "as it is"),
    Line("fedvtc", "real data mixed in", finetune=("method.finetune.real_data=mixed",)),
    Line("fedvtc", "affine", finetune=("method.finetune.augment=affine",)),
    Line("fedvtc", "prototype_weight 1", ("method.prototype_weight=1",)),
    Line("fedvtc", "no distribution matching", ("method.generator.gamma=0",)),
    Line("fedvtc_plus", "as it is"),
    Line("fedvtc_plus", "no affine", finetune=("method.finetune.augment=none",)),
    Line("fedvtc_plus", "no own images", finetune=("method.finetune.real_data=none",)),
    Line("fedvtc_plus", "real data mixed in", finetune=("method.finetune.real_data=mixed",)),
    Line("fedvtc_plus", "pool of 200", finetune=("method.finetune.pool=200",)),
    Line("fedvtc_plus", "constant rate", finetune=("method.finetune.schedule=constant",)),
    Line("fedvtc_plus", "alternating", ("method.generator.training=alternating",)),
    Line("fedvtc_plus", "diagonal covariance", ("method.statistics.covariance=class_diagonal",)),
    Line("fedvtc_plus", "mu 0.005", ("method.generator.reconstruction_weight=0.005",)),
    Line("fedvtc_plus", "mu 0.08", ("method.generator.reconstruction_weight=0.08",)),
    Line("fedvtc_plus", "noise 0.1", ("method.generator.noise=0.1",)),
    Line("fedvtc_plus", "noise 0.6", ("method.generator.noise=0.6",)),
    Line("fedvtc_plus", "float16", ("method.wire=float16",)),
    Line("fedvtc_plus", "p 32", ("population.feature_size=32",)),
    Line("fedvtc_plus", "p 128", ("population.feature_size=128",)),
    Line("fedvtc_plus", "width 16", ("method.generator.width=16",)),
    Line("fedvtc_plus", "5 rounds of 12 passes", ("run.rounds=5", "method.generator.epochs=12")),
    Line("fedvtc_plus", "1 round of 60 passes", ("run.rounds=1", "method.generator.epochs=60")),
    Line("fedvtc_plus", "5 rounds", ("run.rounds=5",)),
    Line("fedvtc_plus", "pool of 400", finetune=("method.finetune.pool=400",)),
    Line("fedvtc_plus", "100 images of a class", finetune=("method.finetune.images_per_class=100",)),
    Line("fedvtc_plus", "40 passes", finetune=("method.finetune.epochs=40",)),
]


def main() -> None:
    """Runs the chosen lines; writes a row for each line and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--lines", nargs="+", metavar="TEXT", default=[""], help="runs only lines whose name contains TEXT"
    )
    parser.add_argument("--experiment", default="mnist_dir01", help="a file of conf/experiment")
    parser.add_argument("--methods", nargs="+", default=["fedvtc", "fedvtc_plus"])
    parser.add_argument("--csv", type=Path, required=True, help="table to append rows to; lines with a row are skipped")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides for all lines")
    arguments = parser.parse_intermixed_args()
    lines = [line for line in LINES if line.method in arguments.methods]
    chosen = [line for line in lines if any(text in line.name for text in arguments.lines)]
    measured = read(arguments.csv)
    for seed in arguments.seeds:
        missing = [line for line in chosen if (str(seed), line.method, line.name) not in measured]
        for row in rows_of(missing, arguments.experiment, [*arguments.overrides, f"run.seed={seed}"]):
            append(arguments.csv, {"seed": seed, **row})


def rows_of(lines: Sequence[Line], experiment: str, overrides: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yields the measurements of each line; lines with the same training share the trained clients."""
    for method, training in dict.fromkeys((line.method, line.training) for line in lines):
        group = [line for line in lines if (line.method, line.training) == (method, training)]
        configs = [config_of(experiment, method, [*overrides, *training, *line.finetune]) for line in group]
        population = Population.of(configs[0])
        limit_threads(configs[0].placement.threads_per_actor)
        began_s = time.process_time()
        broadcast, states = train(configs[0], population)
        trained_s = time.process_time() - began_s
        for line, config in zip(group, configs, strict=True):
            began_s = time.process_time()
            record = finish(config, population, states, broadcast)
            row = {name: round(record[key], 4) if key in record else "" for name, key in COLUMNS.items()}
            finished_s = time.process_time() - began_s
            yield {
                "method": method,
                "line": line.name,
                **row,
                "train_cpu_s": round(trained_s),
                "finish_cpu_s": round(finished_s),
            }


def train(config: Config, population: Population) -> tuple[Broadcast, list[dict[str, Any]]]:
    """Runs all rounds and the closing exchange; returns the last broadcast, and the state of each client."""
    method = build(config.method, Task.of(config, population.dataset))
    clients = clients_of(config, population, method)
    state, broadcast = method.start()
    for _ in range(config.run.rounds):
        server = Server(config.run.seed, broadcast.round + 1)
        state, broadcast = method.server_round(state, uploads_of(clients, method, broadcast), server)
    last = method.last_broadcast(state, broadcast)
    if method.has_closing:
        server = Server(config.run.seed, last.round + 1)
        last = method.closing_server(state, closing_uploads_of(clients, method, last), server)
    return last, [client.state_dict() for client in clients]


def closing_uploads_of(
    clients: Sequence[FederatedClient], method: Method[Any], broadcast: Broadcast
) -> Iterator[Upload]:
    """Yields the closing upload of each client."""
    for client in clients:
        client.begin_round(broadcast.round + 1)
        upload = method.closing_upload(client, broadcast)
        assert upload is not None
        yield upload


def uploads_of(clients: Sequence[FederatedClient], method: Method[Any], broadcast: Broadcast) -> Iterator[Upload]:
    """Yields the upload of each client after the round that follows the broadcast."""
    for client in clients:
        client.begin_round(broadcast.round + 1)
        yield method.client_round(client, broadcast)


def clients_of(config: Config, population: Population, method: Method[Any]) -> list[FederatedClient]:
    """New clients of all specs."""
    clients = [FederatedClient(spec, config, population.dataset, torch.device("cpu")) for spec in population.specs]
    for client in clients:
        method.prepare(client)
    return clients


def finish(
    config: Config, population: Population, states: Sequence[dict[str, Any]], broadcast: Broadcast
) -> dict[str, float]:
    """Fine-tunes copies of the clients, and evaluates the copies on the whole test set."""
    method = build(config.method, Task.of(config, population.dataset))
    clients = clients_of(config, population, method)
    rows, train = [], population.dataset.train
    for client, spec, state in zip(clients, population.specs, states, strict=True):
        client.load_state_dict(deepcopy(state))
        client.begin_round(broadcast.round + 1)
        method.finish(client, broadcast)
        (matrix_CC,) = client.confusions(population.dataset.test, {"head": client.classifier}).values()
        row = evaluate_confusion(matrix_CC, population.class_counts_KC[client.id])
        if len(spec.validation_M):
            own = ImageArrays(train.images_NCHW[spec.validation_M], train.labels_N[spec.validation_M])
            (matrix_CC,) = client.confusions(own, {"head": client.classifier}).values()
            row["validation/accuracy"] = float(matrix_CC.trace() / matrix_CC.sum())
        rows.append(row)
    return aggregate(rows)


def config_of(experiment: str, method: str, overrides: Sequence[str]) -> Config:
    """The config of an experiment with a method file and overrides."""
    files = [CONF / f"experiment/{experiment}.yaml", CONF / f"method/{method}.yaml"]
    return load(files, overrides, methods=config_classes())


def read(path: Path) -> set[tuple[str, str, str]]:
    """Seed, method and line of each row of the table."""
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["seed"], row["method"], row["line"]) for row in csv.DictReader(file)}


def append(path: Path, row: dict[str, object]) -> None:
    """Appends a row to the table, after a header if the file is new; prints the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
