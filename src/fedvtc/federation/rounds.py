"""Algorithm 1: the round loop of the coordinator, with the server's half of the method.

Section names and step numbers in comments are those of docs/method.md.

Shape suffixes: K clients, C classes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError, TooFewClientsError
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.federation.stopper import Stopper
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import ServerState, Task, build
from fedvtc.learning.metrics import RoundTally, aggregate, evaluate_confusion
from fedvtc.learning.population import Population
from fedvtc.learning.seeding import choose_participants
from fedvtc.learning.server import Server
from fedvtc.runtime.device import PROCESS_THREADS
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.pool import Pool
from fedvtc.runtime.tasks import Arguments, Result
from fedvtc.tracking import Tracker

Record = dict[str, Any]


class Federation:
    """The round loop of one run.

    Args:
        config: the run's config.
        population: the data set and the clients.
        pool: runs tasks on the clients.
        trackers: trackers that receive every record.
        checkpoints: saves completed rounds.
        incidents: failures, which go into the records.
        stopper: ends the run early after a signal.

    Attributes:
        num_done: completed rounds.
    """

    def __init__(
        self,
        config: Config,
        population: Population,
        pool: Pool,
        trackers: Sequence[Tracker],
        *,
        checkpoints: Checkpointer,
        incidents: Incidents,
        stopper: Stopper,
    ) -> None:
        self._config, self._population, self._pool, self._trackers = config, population, pool, trackers
        self._checkpoints, self._incidents, self._stopper = checkpoints, incidents, stopper
        self._method = build(config.method, Task.of(config, population.dataset))
        self._everyone = [spec.client for spec in population.specs]
        self.num_done = 0
        self._last: tuple[Record, list[Record]] | None = None

    def run(self, resumed: tuple[ServerState, Broadcast] | None = None) -> Record:
        """Runs all rounds, the method's last step on every client, and the final evaluation.

        Args:
            resumed: the server's state and broadcast after round `broadcast.round`, to continue from; the clients in
                the pool must be at the end of the same round. None starts with round 1.

        Returns:
            The final record.

        Raises:
            ClientError: a client failed, and `runtime.on_client_error` is `fail`.
            TooFewClientsError: a round had fewer uploads than `runtime.min_clients`.
            DiskError: a file could not be written, and `runtime.on_disk_error` is `stop`.
            Interrupted: a signal ended the run.
        """
        # The server's initial state, and an empty broadcast.
        state, broadcast = resumed or self._method.start()
        self.num_done = broadcast.round
        self._stopper.may_abandon = lambda: self._checkpoints.covers(self.num_done)
        for round in range(broadcast.round + 1, self._config.run.rounds + 1):
            state, broadcast = self._round(round, state, broadcast)
        # Fine-tuning, for methods with a last step.
        broadcast = self._method.last_broadcast(state, broadcast)
        self._show_samples(self._config.run.rounds, broadcast)
        return self._finish(broadcast)

    def _round(self, round: int, state: ServerState, broadcast: Broadcast) -> tuple[ServerState, Broadcast]:
        """Runs one round, logs its record and saves it; returns the server's state and the next broadcast."""
        began_s = time.perf_counter()
        # A round on a client, steps 1 to 5: participants receive the broadcast, train, measure, and upload.
        # The server: merges the uploads as they arrive, in client order, into its state and the next broadcast.
        tally = RoundTally(broadcast)
        results = self._each(ClientHost.run_round, self._participants(round), broadcast)
        uploads = tally.watch(self._enough(round, results))
        server = Server(self._config.run.seed, round)
        # As many threads as a client has, because sums of the server's training are formed in their order.
        with PROCESS_THREADS.held(self._config.placement.threads_per_actor):
            state, broadcast = self._method.server_round(state, uploads, server)
        record: Record = {"round": round, "phase": "round", **tally.record(), **server.scalars, **self._pool.record()}
        clients: list[Record] = []
        # Generalization: every client classifies the global test set.
        if round % self._config.evaluate.every == 0 or round == self._config.run.rounds:
            clients = self._evaluate(record)
        record["time/round"] = time.perf_counter() - began_s
        if round % self._config.evaluate.samples_every == 0 and round < self._config.run.rounds:
            self._show_samples(round, broadcast)
        # A signal inside this block ends the run after the block, so that no round is logged without being saved.
        with self._stopper.deferred():
            self._log(record, clients)
            is_last = round == self._config.run.rounds or self._stopper.is_requested
            if self._checkpoints.is_due(round, is_last=is_last):
                is_recorded = not any(tracker.num_waiting for tracker in self._trackers)
                accuracy = record.get("test/accuracy/mean")
                self._checkpoints.save(round, state, broadcast, accuracy, is_recorded=is_recorded)
            self.num_done, self._last = round, (record, clients)
        return state, broadcast

    def _finish(self, broadcast: Broadcast) -> Record:
        """Runs the method's last step on every client, evaluates, saves the final models, and logs the final record.

        A method without a last step ends with the evaluation of its last round.
        """
        record: Record = {"round": self._config.run.rounds, "phase": "final"}
        began_s = time.perf_counter()
        # Fine-tuning on every client, participants of the last round or not.
        if self._method.has_finish:
            tally = RoundTally(broadcast)
            for scalars in self._each(ClientHost.finish, self._everyone, broadcast):
                tally.add_scalars(scalars)
            # Every client receives the last broadcast; no client uploads.
            record |= tally.record(num_receivers=len(self._everyone))
        if self._method.has_finish or self._last is None:
            clients = self._evaluate(record)
            record["time/round"] = time.perf_counter() - began_s
        else:
            last, clients = self._last
            record |= {name: value for name, value in last.items() if name.startswith("test/")}
        with self._stopper.deferred():
            try:
                self._checkpoints.save_final(record["round"], record.get("test/accuracy/mean"))
            finally:
                # After the checkpoint, so that the record also counts failures of the last checkpoints.
                self._log(record, clients)
        return record

    def _participants(self, round: int) -> list[int]:
        run = self._config.run
        return choose_participants(
            run.seed, round=round, num_clients=len(self._everyone), participation=run.participation
        )

    def _enough(self, round: int, uploads: Iterator[Upload]) -> Iterator[Upload]:
        """Yields the uploads; raises `TooFewClientsError` after the last one if they are fewer than the minimum.

        The minimum is `runtime.min_clients`.
        """
        num_uploads = 0
        for upload in uploads:
            num_uploads += 1
            yield upload
        least = self._config.runtime.min_clients
        if num_uploads < least:
            raise TooFewClientsError(f"round {round}: {num_uploads} uploads, but runtime.min_clients is {least}.")

    def _evaluate(self, record: Record) -> list[Record]:
        """Evaluates every client on the global test set, adds the aggregate to the record, returns a row per client."""
        began_s = time.perf_counter()
        rows: list[Record] = []
        matrices = self._each(ClientHost.evaluate, self._everyone)
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

    def _each(
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

    def _log(self, record: Record, clients: Sequence[Record]) -> None:
        record |= self._incidents.take()
        for tracker in self._trackers:
            tracker.log(record, clients)

    def _show_samples(self, round: int, broadcast: Broadcast) -> None:
        client = self._participants(round)[0]
        (drawn,) = self._pool.map(ClientHost.samples, [client], broadcast, self._config.evaluate.samples_per_class)
        if drawn is not None and not isinstance(drawn, ClientError):
            for tracker in self._trackers:
                tracker.show_samples(round, *drawn)
