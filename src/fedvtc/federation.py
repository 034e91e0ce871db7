"""The coordinator: it owns the rounds and the server's half of the method, and everything else is told to it.

Shape suffixes: K clients, C classes.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.client import ClientSpec
from fedvtc.config import to_dict
from fedvtc.config.schema import Config
from fedvtc.data import Dataset, class_counts, load_dataset, make_partition, save_partition
from fedvtc.errors import UserError
from fedvtc.messages import Broadcast
from fedvtc.methods import build
from fedvtc.metrics import RoundTally, aggregate, evaluate_confusion
from fedvtc.population import assign_backbones
from fedvtc.runtime import Pool, open_pool, task_of
from fedvtc.seeding import choose_participants
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.console import make_console_tracker
from fedvtc.tracking.files import CsvTracker, JsonlTracker, RunFolder
from fedvtc.tracking.pictures import PictureTracker

Record = dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`.
    """

    folder: Path
    record: Mapping[str, Any]


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


def run_federation(config: Config, *, plain: bool = False) -> RunSummary:
    """Runs a federation from its config to its run folder.

    Args:
        config: whole and checked.
        plain: one line per round instead of a live table.

    Raises:
        UserError: the data, the cluster or the run folder are not as the config needs them.
        ClientError: a client failed.
    """
    population = Population.of(config)
    folder = RunFolder.create(config.run.output_dir, config.run.name or default_name(config), to_dict(config))
    save_partition(
        folder.path / "partition.npz", [spec.indices_N for spec in population.specs], population.dataset.train.labels_N
    )
    console = make_console_tracker(plain)
    trackers: list[Tracker] = [JsonlTracker(), CsvTracker(), PictureTracker(population.dataset.class_names), console]
    info = RunInfo(
        id=folder.id,
        name=folder.path.name,
        folder=folder.path,
        config=config,
        config_dict=to_dict(config),
        class_counts_KC=population.class_counts_KC,
        backbones=[spec.backbone for spec in population.specs],
    )
    with ExitStack() as stack:
        stack.enter_context(_status_kept(folder))
        pool = stack.enter_context(open_pool(config, population.dataset, population.specs, namespace=folder.id))
        stack.enter_context(_tracking(trackers, info))
        record = Federation(config, population, pool, trackers).run()
    console.summary(record)
    return RunSummary(folder.path, record)


def default_name(config: Config) -> str:
    """Data, partition, method, seed and the time to the second."""
    method = config.method.label or config.method.name
    return _file_name(f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}")


def partition_name(config: Config) -> str:
    """Data and partition, in a word that is fit for a file name."""
    partition = config.partition
    divided = f"{partition.kind}{partition.alpha:g}" if partition.kind in ("dirichlet", "quantity") else partition.kind
    return _file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)


@contextmanager
def _status_kept(folder: RunFolder) -> Iterator[None]:
    """run.json says how the block ended; what the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        folder.discard()
        raise
    except BaseException as error:
        folder.set_status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    folder.set_status("finished")


@contextmanager
def _tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[None]:
    """Starts the trackers, and finishes them however the block ends."""
    with ExitStack() as stack:
        outcome = {"status": "failed"}
        for tracker in trackers:
            tracker.start(info)
            stack.callback(_finish, tracker, outcome)
        try:
            yield
        except KeyboardInterrupt:
            outcome["status"] = "interrupted"
            raise
        outcome["status"] = "finished"


def _finish(tracker: Tracker, outcome: Mapping[str, str]) -> None:
    tracker.finish(outcome["status"])
