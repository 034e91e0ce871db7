"""All clients of one run: tasks on them, with the progress for the trackers, and their evaluation.

Shape suffixes: K clients, C classes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError
from fedvtc.learning.ensemble import Ensemble
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.metrics import EVALUATED_CLIENTS, aggregate, evaluate_confusion
from fedvtc.learning.population import Population
from fedvtc.learning.privacy.memorisation import bounded_memorisation
from fedvtc.learning.seeding import choose_evaluated, choose_participants
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.pool import Pool
from fedvtc.runtime.tasks import Arguments, Result
from fedvtc.storage.confusions import kept_every
from fedvtc.tracking import Tracker

Record = dict[str, Any]


class Evaluations(NamedTuple):
    """The evaluations of clients.

    Attributes:
        rows: one row per client, in client order.
        confusions: image counts (K, C, C) of the test set by predictor; the name of the ranked predictor is empty.
            Empty for a sample of clients, or if they are too large to keep.
    """

    rows: Sequence[Record] = ()
    confusions: Mapping[str, NDArray[np.uint32]] = MappingProxyType({})


class Clients:
    """The clients of a population in a pool.

    Args:
        config: the run's config.
        population: the data set and the clients.
        pool: runs tasks on the clients.
        trackers: receive the progress of each task.

    Attributes:
        everyone: the numbers of all clients.
        evaluated: the numbers of the clients in the evaluations of rounds.
    """

    def __init__(self, config: Config, population: Population, pool: Pool, trackers: Sequence[Tracker]) -> None:
        self._config, self._population, self._pool, self._trackers = config, population, pool, trackers
        self.everyone = [spec.client for spec in population.specs]
        self.evaluated = choose_evaluated(
            config.run.seed, num_clients=len(self.everyone), evaluated=config.evaluate.clients
        )

    def backbones(self, clients: Sequence[int]) -> list[str]:
        """Returns the backbone of each of the clients."""
        return [self._population.specs[client].backbone for client in clients]

    def participants(self, round: int) -> list[int]:
        """Returns the clients that take part in a round."""
        run = self._config.run
        return choose_participants(
            run.seed, round=round, num_clients=len(self.everyone), participation=run.participation
        )

    def each(
        self, task: Callable[[ClientHost, int, *Arguments], Result], clients: Sequence[int], *arguments: *Arguments
    ) -> Iterator[Result]:
        """Yields the result of each client and notifies the trackers; a skipped client has no result."""
        for num_done, (client, result) in enumerate(
            zip(clients, self._pool.map(task, clients, *arguments), strict=True), start=1
        ):
            for tracker in self._trackers:
                tracker.client_done(client, num_done, len(clients))
            if not isinstance(result, ClientError):
                yield result

    def evaluate(
        self, clients: Sequence[int], record: Record, broadcast: Broadcast, *, is_finished: bool = False
    ) -> Evaluations:
        """Evaluates clients on the global test set, adds the aggregate to the record, and returns the rest.

        Args:
            clients: the clients to evaluate, `everyone` or `evaluated`.
            record: gets the aggregate.
            broadcast: the newest broadcast.
            is_finished: True if the clients have received the broadcast for good.
        """
        began_s = time.perf_counter()
        rows: list[Record] = []
        confusions: dict[str, NDArray[np.uint32]] = {}
        population, dataset = self._population, self._population.dataset
        ensemble = Ensemble(dataset.test.labels_N, dataset.num_classes) if self._config.evaluate.ensemble else None
        shape = (len(self.everyone), dataset.num_classes, dataset.num_classes)
        keeps_confusions = clients == self.everyone and kept_every(1, math.prod(shape)) is not None
        found = self.each(ClientHost.evaluate, clients, broadcast, is_finished)
        for client, evaluation in zip(clients, found, strict=True):
            spec, counts_C = population.specs[client], population.class_counts_KC[client]
            for name, peak in evaluation.peaks.items():
                record[name] = max(peak, record.get(name, 0.0))
            about = {
                "client": spec.client,
                "backbone": spec.backbone,
                "num_images": len(spec.indices_N),
                "num_classes": int((counts_C > 0).sum()),
            }
            (_, ranked_CC), *others = evaluation.confusions.items()
            row = {**about, **evaluate_confusion(ranked_CC, counts_C)}
            for name, matrix_CC in others:
                row[f"accuracy/{name}"] = evaluate_confusion(matrix_CC, counts_C)["accuracy"]
            if keeps_confusions:
                for name, matrix_CC in [("", ranked_CC), *others]:
                    if name not in confusions:
                        confusions[name] = np.zeros(shape, np.uint32)
                    confusions[name][spec.client] = matrix_CC
            if self._config.evaluate.validation_share:
                row["validation/accuracy"] = evaluation.validation_accuracy
                row["validation/global/accuracy"] = evaluation.global_validation_accuracy
            if ensemble is not None and evaluation.probabilities_NC is not None:
                ensemble.add(evaluation.probabilities_NC)
            rows.append(row)
        record |= aggregate(rows) | (ensemble.record() if ensemble is not None else {})
        if self._config.evaluate.clients != "all":
            record[EVALUATED_CLIENTS] = len(rows)
        record["time/evaluate"] = time.perf_counter() - began_s
        return Evaluations(rows, confusions)

    def show_samples(self, round: int, broadcast: Broadcast) -> NDArray[np.uint8] | None:
        """Passes generated images of a participant of the round to the trackers, and returns the images.

        None if the method generates no images.
        """
        client = self.participants(round)[0]
        (drawn,) = self._pool.map(ClientHost.samples, [client], broadcast, self._config.evaluate.samples_per_class)
        if drawn is None or isinstance(drawn, ClientError):
            return None
        for tracker in self._trackers:
            tracker.show_samples(round, *drawn)
        return drawn[0]

    def memorisation(self, images_NCHW: NDArray[np.uint8]) -> dict[str, float]:
        """Compares generated images with training images; empty without `evaluate.memorisation`."""
        if not self._config.evaluate.memorisation:
            return {}
        return bounded_memorisation(images_NCHW, self._population, self._config.run.seed)
