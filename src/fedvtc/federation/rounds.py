"""The coordinator: it owns the rounds and the server's half of the method, and everything else is told to it.

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
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.pool import Pool
from fedvtc.runtime.tasks import Arguments, Result
from fedvtc.tracking import Tracker

Record = dict[str, Any]


class Federation:
    """The rounds of one federation.

    Args:
        config: of the federation.
        population: who takes part.
        pool: where the clients live.
        trackers: each gets every record.
        checkpoints: gets every round that is done.
        incidents: what happened goes into the records.
        stopper: says when the run has to end early.
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
        """All rounds, the method's last step, and the final evaluation, whose record is returned.

        Args:
            resumed: what the server had after the round of the broadcast; the clients are as they were then.

        Raises:
            ClientError: a client failed, and the policy is to end the run.
            TooFewClientsError: a round had too few uploads.
            DiskError: something could not be written, and the policy is to stop.
            Interrupted: the run was asked to end.
        """
        state, broadcast = resumed or self._method.start()
        self.num_done = broadcast.round
        self._stopper.may_abandon = lambda: self._checkpoints.covers(self.num_done)
        for round in range(broadcast.round + 1, self._config.run.rounds + 1):
            state, broadcast = self._round(round, state, broadcast)
        broadcast = self._method.last_broadcast(state, broadcast)
        self._show_samples(self._config.run.rounds, broadcast)
        return self._finish(broadcast)

    def _round(self, round: int, state: ServerState, broadcast: Broadcast) -> tuple[ServerState, Broadcast]:
        """One round, with its record and its checkpoint; what the next one starts with."""
        began_s = time.perf_counter()
        tally = RoundTally(broadcast)
        results = self._each(ClientHost.run_round, self._participants(round), broadcast)
        uploads = tally.watch(self._enough(round, results))
        state, broadcast = self._method.server_round(state, uploads)
        record: Record = {"round": round, "phase": "round", **tally.record(), **self._pool.record()}
        clients: list[Record] = []
        if round % self._config.evaluate.every == 0 or round == self._config.run.rounds:
            clients = self._evaluate(record)
        record["time/round"] = time.perf_counter() - began_s
        if round % self._config.evaluate.samples_every == 0 and round < self._config.run.rounds:
            self._show_samples(round, broadcast)
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
        """The method's last step on every client; a method without one ends with its last round's evaluation."""
        record: Record = {"round": self._config.run.rounds, "phase": "final"}
        began_s = time.perf_counter()
        if self._method.has_finish:
            tally = RoundTally(broadcast)
            for scalars in self._each(ClientHost.finish, self._everyone, broadcast):
                tally.add_scalars(scalars)
            # Every client receives the last broadcast; nobody answers.
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
                # Last, so that it holds what happened to the last checkpoints too.
                self._log(record, clients)
        return record

    def _participants(self, round: int) -> list[int]:
        run = self._config.run
        return choose_participants(
            run.seed, round=round, num_clients=len(self._everyone), participation=run.participation
        )

    def _enough(self, round: int, uploads: Iterator[Upload]) -> Iterator[Upload]:
        """The same uploads.

        Raises:
            TooFewClientsError: after the last one, if there were fewer than `runtime.min_clients`.
        """
        num_uploads = 0
        for upload in uploads:
            num_uploads += 1
            yield upload
        least = self._config.runtime.min_clients
        if num_uploads < least:
            raise TooFewClientsError(f"round {round}: {num_uploads} uploads, runtime.min_clients is {least}")

    def _evaluate(self, record: Record) -> list[Record]:
        """Measures every client on the global test set, adds the aggregate to the record, returns a row per client."""
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
        """The pool's results, without those of clients that were left out, each announced to the trackers."""
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
