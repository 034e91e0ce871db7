"""Algorithm 1: the round loop of the coordinator, with the server's half of the method.

Section names and step numbers in comments are those of docs/method.md.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from fedvtc.config.own_code import own_calls
from fedvtc.config.schema import Config
from fedvtc.errors import TooFewClientsError, count_of
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.federation.clients import Clients, Evaluations, Record
from fedvtc.federation.stopper import Stopper
from fedvtc.learning.costs import FlopCounts
from fedvtc.learning.exchange.messages import Broadcast, Upload, check_scalars
from fedvtc.learning.methods import ServerState, Task, as_result, as_step, build
from fedvtc.learning.peak_memory import peak_memory_bytes
from fedvtc.learning.population import Population
from fedvtc.learning.round_tally import RoundTally
from fedvtc.learning.server import Server
from fedvtc.runtime.device import PROCESS_THREADS
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.pool import Pool
from fedvtc.tracking import Tracker

CLOSING = "closing/"
"""Prefix of the payload kinds of the closing exchange in a record."""


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
        self._config, self._pool, self._trackers = config, pool, trackers
        self._checkpoints, self._incidents, self._stopper = checkpoints, incidents, stopper
        self._method = build(config.method, Task.of(config, population.dataset))
        self._clients = Clients(config, population, pool, trackers)
        self._flops = FlopCounts()
        self.num_done = 0
        self._last: tuple[Record, Evaluations] | None = None

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
        with own_calls():
            state, broadcast = resumed or as_step(self._method.start(), self._method, "start")
        self.num_done = broadcast.round
        self._stopper.may_abandon = lambda: self._checkpoints.covers(self.num_done)
        for round in range(broadcast.round + 1, self._config.run.rounds + 1):
            state, broadcast = self._round(round, state, broadcast)
        return self._finish(state, self._method.last_broadcast(state, broadcast))

    def _round(self, round: int, state: ServerState, broadcast: Broadcast) -> tuple[ServerState, Broadcast]:
        """Runs one round, logs its record and saves it; returns the server's state and the next broadcast."""
        began_s = time.perf_counter()
        # A round on a client, steps 1 to 5: participants receive the broadcast, train, measure, and upload.
        # The server: merges the uploads as they arrive, in client order, into its state and the next broadcast.
        tally, received = RoundTally(), broadcast
        results = self._clients.each(ClientHost.run_round, self._clients.participants(round), broadcast)
        with self._server(round, tally) as server:
            uploads = tally.watch(self._enough(f"round {round}", results))
            state, merged = as_step(self._method.server_round(state, uploads, server), self._method, "server_round")
            _read_rest(uploads)
            # The round keys the clients' draws and is the round of a resume, so a method cannot set another one.
            broadcast = replace(merged, round=round)
        tally.add_received(received, self._clients.backbones(tally.uploaders))
        record: Record = {"round": round, "phase": "round", **tally.record(), **server.scalars, **self._pool.record()}
        evaluated = Evaluations()
        # Generalization: clients classify the global test set.
        if round % self._config.evaluate.every == 0 or round == self._config.run.rounds:
            evaluated = self._clients.evaluate(self._clients.evaluated, record, broadcast)
        record |= {"time/round": time.perf_counter() - began_s, "memory/coordinator_peak_bytes": peak_memory_bytes()}
        if round % self._config.evaluate.samples_every == 0 and round < self._config.run.rounds:
            self._clients.show_samples(round, broadcast)
        # A signal inside this block ends the run after the block, so that no round is logged without being saved.
        with self._stopper.deferred():
            self._log(record, evaluated)
            is_last = round == self._config.run.rounds or self._stopper.is_requested
            if self._checkpoints.is_due(round, is_last=is_last):
                is_recorded = not any(tracker.num_waiting for tracker in self._trackers)
                accuracy = record.get("test/accuracy/mean")
                self._checkpoints.save(round, state, broadcast, accuracy, is_recorded=is_recorded)
            self.num_done, self._last = round, (record, evaluated)
        return state, broadcast

    def _finish(self, state: ServerState, broadcast: Broadcast) -> Record:
        """Runs the last steps on every client, evaluates, saves the final models, and logs the final record.

        Without a last step of the method, the final record repeats the evaluation of the last round if that had every
        client; the clients then receive the last broadcast for good.
        """
        method, everyone = self._method, self._clients.everyone
        has_step = method.has_closing or method.has_finish
        record: Record = {"round": self._config.run.rounds, "phase": "final"}
        began_s = time.perf_counter()
        evaluated = Evaluations() if has_step else self._evaluate_last(record, broadcast)
        # Every client, participants of the last round or not.
        tally, exchange = RoundTally(), ""
        if method.has_closing:
            broadcast, exchange = self._close(state, broadcast, tally, record), CLOSING
        images_NCHW = self._clients.show_samples(self._config.run.rounds, broadcast)
        if images_NCHW is not None:
            record |= self._clients.memorisation(images_NCHW)
        # Fine-tuning, for methods with a last step.
        if has_step or method.has_receive:
            for scalars in self._clients.each(ClientHost.finish, everyone, broadcast):
                tally.add_scalars(scalars)
            tally.add_received(broadcast, self._clients.backbones(everyone), exchange)
            record |= tally.record()
        if has_step:
            evaluated = self._clients.evaluate(everyone, record, broadcast, is_finished=True)
        if "time/evaluate" in record:
            record |= {
                "time/round": time.perf_counter() - began_s,
                "memory/coordinator_peak_bytes": peak_memory_bytes(),
            }
        with self._stopper.deferred():
            try:
                self._checkpoints.save_final(record["round"], state, broadcast, record.get("test/accuracy/mean"))
            finally:
                # After the checkpoint, so that the record also counts failures of the last checkpoints.
                self._log(record, evaluated)
        return record

    def _close(self, state: ServerState, broadcast: Broadcast, tally: RoundTally, record: Record) -> Broadcast:
        """Runs the closing exchange of every client; returns the server's answer, which counts as one round more."""
        everyone, round = self._clients.everyone, broadcast.round + 1
        tally.add_received(broadcast, self._clients.backbones(everyone))
        results = self._clients.each(ClientHost.closing_upload, everyone, broadcast)
        with self._server(round, tally) as server:
            uploads = tally.watch(self._enough("closing exchange", results), CLOSING)
            closing = self._method.closing_server(state, uploads, server)
            closing = as_result(closing, Broadcast, self._method, "closing_server")
            _read_rest(uploads)
        record |= server.scalars
        return replace(closing, round=round)

    def _evaluate_last(self, record: Record, broadcast: Broadcast) -> Evaluations:
        """Adds the evaluation of the last round to the record.

        Evaluates every client if the run resumed after that round, or if the round evaluated a sample.
        """
        if self._last is None or self._clients.evaluated != self._clients.everyone:
            return self._clients.evaluate(self._clients.everyone, record, broadcast)
        last, evaluated = self._last
        record |= {name: value for name, value in last.items() if name.startswith(("test/", "validation/"))}
        return evaluated

    @contextmanager
    def _server(self, round: int, tally: RoundTally) -> Iterator[Server]:
        """Yields the tools of the server in a round.

        The server has as many threads as a client, because sums depend on the number of threads.

        Args:
            round: the round.
            tally: the tally that watches the uploads of the block.
        """
        with PROCESS_THREADS.held(self._config.placement.threads_per_actor):
            server, began_cpu_s = Server(self._config.run.seed, round, self._flops), time.process_time()
            yield server
            check_scalars(server.scalars, "server.scalars")
            server.scalars["cpu/server"] = time.process_time() - began_cpu_s - tally.waited_cpu_s

    def _enough(self, exchange: str, uploads: Iterator[Upload]) -> Iterator[Upload]:
        """Yields the uploads; raises `TooFewClientsError` after the last one if they are fewer than the minimum.

        The minimum is `runtime.min_clients`.
        """
        num_uploads = 0
        for upload in uploads:
            num_uploads += 1
            yield upload
        least = self._config.runtime.min_clients
        if num_uploads < least:
            raise TooFewClientsError(
                f"{exchange}: {count_of(num_uploads, 'upload')}, but runtime.min_clients is {least}."
            )

    def _log(self, record: Record, evaluated: Evaluations) -> None:
        record |= self._incidents.take()
        for tracker in self._trackers:
            if evaluated.rows:
                tracker.log_confusions(record, evaluated.confusions)
            tracker.log(record, evaluated.rows)


def _read_rest(uploads: Iterator[Upload]) -> None:
    """Reads the uploads that a method has not read: their clients would not take part in the round."""
    for _ in uploads:
        pass
