"""The coordinator: it owns the rounds and the server's half of the method, and everything else is told to it.

Shape suffixes: K clients, C classes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.client import ClientSpec
from fedvtc.config.schema import Config
from fedvtc.data import Dataset, class_counts, load_dataset, make_partition
from fedvtc.messages import Broadcast
from fedvtc.methods import build
from fedvtc.metrics import RoundTally, aggregate, evaluate_confusion
from fedvtc.population import assign_backbones
from fedvtc.runtime import Pool, task_of
from fedvtc.seeding import choose_participants
from fedvtc.tracking import Tracker

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Population:
    """The clients and the data that they share.

    Attributes:
        dataset: the images.
        specs: one per client, in client order.
        class_counts_KC: training images by client and class.
    """

    dataset: Dataset
    specs: Sequence[ClientSpec]
    class_counts_KC: NDArray[np.int64]

    @classmethod
    def of(cls, config: Config) -> "Population":
        """Loads the data and divides them.

        Raises:
            DataError: if the data are absent or damaged, or the partition is impossible.
        """
        dataset = load_dataset(config.data)
        labels_N, num_clients = dataset.train.labels_N, config.population.num_clients
        parts = make_partition(labels_N, dataset.num_classes, num_clients, config.partition, config.run.seed)
        backbones = assign_backbones(config.population)
        specs = [ClientSpec(client, *made) for client, made in enumerate(zip(backbones, parts, strict=True))]
        return cls(dataset, specs, class_counts(labels_N, parts, dataset.num_classes))


class Federation:
    """The rounds of one federation.

    Args:
        config: of the federation.
        population: who takes part.
        pool: where the clients live.
        trackers: each gets every record.
    """

    def __init__(self, config: Config, population: Population, pool: Pool, trackers: Sequence[Tracker]) -> None:
        self._config, self._population, self._pool, self._trackers = config, population, pool, trackers
        self._method = build(config.method, task_of(config, population.dataset))
        self._everyone = [spec.client for spec in population.specs]

    def run(self) -> Record:
        """All rounds, the method's last step, and the final evaluation, whose record is returned."""
        run, evaluate = self._config.run, self._config.evaluate
        state, broadcast = self._method.start()
        for round in range(1, run.rounds + 1):
            began_s = time.perf_counter()
            participants = choose_participants(
                run.seed, round=round, num_clients=len(self._everyone), participation=run.participation
            )
            tally = RoundTally(broadcast)
            uploads = tally.watch(self._each("run_round", participants, broadcast))
            state, broadcast = self._method.server_round(state, uploads)
            record: Record = {"round": round, "phase": "round", **tally.record()}
            clients: list[Record] = []
            if round % evaluate.every == 0 or round == run.rounds:
                clients = self._evaluate(record)
            record["time/round"] = time.perf_counter() - began_s
            self._log(record, clients)
            if round % evaluate.samples_every == 0 and round < run.rounds:
                self._show_samples(round, participants[0], broadcast)
        broadcast = self._method.last_broadcast(state, broadcast)
        self._show_samples(run.rounds, participants[0], broadcast)
        return self._finish(broadcast, record, clients)

    def _finish(self, broadcast: Broadcast, last: Record, clients: list[Record]) -> Record:
        """The method's last step on every client; a method without one ends with its last round's evaluation."""
        record: Record = {"round": last["round"], "phase": "final"}
        if self._method.has_finish:
            began_s = time.perf_counter()
            tally = RoundTally(broadcast)
            for scalars in self._each("finish", self._everyone, broadcast):
                tally.add_scalars(scalars)
            # Every client receives the last broadcast; nobody answers.
            record |= tally.record(num_receivers=len(self._everyone))
            clients = self._evaluate(record)
            record["time/round"] = time.perf_counter() - began_s
        else:
            record |= {name: value for name, value in last.items() if name.startswith("test/")}
        self._log(record, clients)
        return record

    def _evaluate(self, record: Record) -> list[Record]:
        """Measures every client on the global test set, adds the aggregate to the record, returns a row per client."""
        began_s = time.perf_counter()
        rows: list[Record] = []
        matrices = self._each("evaluate", self._everyone)
        for spec, counts_C, confusion_CC in zip(
            self._population.specs, self._population.class_counts_KC, matrices, strict=True
        ):
            about = {
                "client": spec.client,
                "backbone": spec.backbone,
                "num_images": len(spec.indices_N),
                "num_classes": int((counts_C > 0).sum()),
            }
            rows.append({**about, **evaluate_confusion(confusion_CC, counts_C)})
        record |= aggregate(rows)
        record["time/evaluate"] = time.perf_counter() - began_s
        return rows

    def _each(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """The pool's results, each announced to the trackers."""
        for num_done, (client, result) in enumerate(
            zip(clients, self._pool.map(task, clients, *arguments), strict=True), start=1
        ):
            for tracker in self._trackers:
                tracker.client_done(client, num_done, len(clients))
            yield result

    def _log(self, record: Record, clients: Sequence[Record]) -> None:
        for tracker in self._trackers:
            tracker.log(record, clients)

    def _show_samples(self, round: int, client: int, broadcast: Broadcast) -> None:
        (drawn,) = self._pool.map("samples", [client], broadcast, self._config.evaluate.samples_per_class)
        if drawn is not None:
            for tracker in self._trackers:
                tracker.show_samples(round, *drawn)
