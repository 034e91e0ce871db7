"""Writes checkpoints while the next rounds run; `fedvtc.storage.checkpoints` defines the files."""

import errno
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from fedvtc.config import fingerprint
from fedvtc.config.schema import Config
from fedvtc.errors import DiskError
from fedvtc.federation.retention import KeptCheckpoints, reason
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import ServerState
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.pool import Pool
from fedvtc.storage import versions
from fedvtc.storage.attempt import now
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, Shard
from fedvtc.storage.checkpoints.contents import write_server

_Server = tuple[ServerState, Broadcast]
MAX_LINEAGE_BYTES = 2**28
"""Bytes of the steps since the last checkpoint beyond which a checkpoint is due. The coordinator keeps the steps to
rebuild lost clients, so that without checkpoints its memory would grow with every round."""
TICK_S = 1.0
"""Seconds between two checks for lost actors while a checkpoint is written."""


@dataclass(eq=False)
class _Draft:
    """A checkpoint that is being written.

    Attributes:
        manifest: the manifest, still without shards.
        name: name of the draft in the store.
        saved: the shards that the processes of the clients write.
        shards: the shards that the writing thread has completed.
        outcome: acquired once: by the thread that decides whether the checkpoint is whole or given up.
    """

    manifest: Manifest
    name: str
    saved: Sequence[Future[list[Shard]]]
    shards: list[Shard] = field(default_factory=list)
    outcome: threading.Lock = field(default_factory=threading.Lock)

    def decide(self) -> bool:
        """Returns True for the first caller, who decides the outcome, and False for every other."""
        return self.outcome.acquire(blocking=False)

    @property
    def num_done(self) -> int:
        """Number of completed writes."""
        return len(self.shards) + sum(saved.done() for saved in self.saved)


class Checkpointer:
    """Writes one checkpoint at a time, in a thread of its own.

    At the end of a `with` block, waits for the checkpoint that is being written.

    Args:
        config: the run's config; without `checkpoint.every`, checkpoints only bound the memory of the lineage.
        store: the store of the run's checkpoints.
        pool: the pool of the clients.
        lineage: drops the steps that a whole checkpoint covers.
        incidents: receives checkpoints that could not be written.
        run_id: id of the run.
        attempt: number of the attempt, from 1.
        start: the checkpoint that the run continues from; None for a new run.
        on_first: called once, by the writing thread, after the first checkpoint of a round is whole.
    """

    def __init__(
        self,
        config: Config,
        store: CheckpointStore,
        pool: Pool,
        lineage: Lineage,
        incidents: Incidents,
        *,
        run_id: str,
        attempt: int,
        start: Manifest | None = None,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._config, self._store, self._pool, self._incidents = config, store, pool, incidents
        self._run_id, self._attempt = run_id, attempt
        self._fingerprint, self._versions = fingerprint(config), versions.installed()
        self._lineage = lineage
        self._kept = KeptCheckpoints(config.checkpoint, store, lineage, incidents, start, on_first)
        self._begun_round = self._kept.round
        self._draft: _Draft | None = None
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._lost_process = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def is_due(self, round: int, *, is_last: bool) -> bool:
        """Returns True if a checkpoint is due after a round.

        Args:
            round: the completed round.
            is_last: True if the run ends after this round, early or not.
        """
        if self._lineage.bytes_since(self._begun_round) > MAX_LINEAGE_BYTES:
            return True
        every = self._config.checkpoint.every
        return every is not None and (round % every == 0 or is_last)

    def covers(self, round: int) -> bool:
        """Returns True if a run that ends now loses none of its first `round` rounds."""
        return self._config.checkpoint.every is None or self._begun_round >= round

    def save(
        self,
        round: int,
        state: ServerState,
        broadcast: Broadcast,
        accuracy: float | None,
        *,
        is_recorded: bool = True,
    ) -> None:
        """Starts to write the checkpoint of a round, after the previous checkpoint is complete.

        Args:
            round: the completed round.
            state: the server's state after the round.
            broadcast: the broadcast of the next round.
            accuracy: mean generalization accuracy; None if the round has no evaluation.
            is_recorded: see `KeptCheckpoints.add`.

        Raises:
            DiskError: a checkpoint could not be written, and `runtime.on_disk_error` is `stop`.
        """
        self._begin(round, "round", (state, broadcast), accuracy, is_recorded=is_recorded)

    def save_final(self, round: int, state: ServerState, broadcast: Broadcast, accuracy: float | None) -> None:
        """Saves the final models of the clients and the server's last state; retries after the loss of a process.

        Args:
            round: the last round.
            state: the server's state after the last round.
            broadcast: the last broadcast that the clients received.
            accuracy: mean generalization accuracy of the final evaluation.

        Raises:
            DiskError: the checkpoint could not be written, and `runtime.on_disk_error` is `stop`.
        """
        if self._config.checkpoint.every is None:
            return
        for _ in range(1 + self._config.runtime.retries):
            self._lost_process = False
            self._begin(round, "final", (state, broadcast), accuracy)
            self.wait()
            if not self._lost_process:
                return

    def abandon(self) -> None:
        """Waits for the checkpoint that is being written, without calling an actor: actors may be busy or lost.

        Gives up if no shard was written for `runtime.client_timeout_s`.
        """
        self._ends(lambda: None)

    def wait(self) -> None:
        """Waits for the checkpoint that is being written. No client may be busy; lost actors are replaced.

        Gives the checkpoint up if no shard was written for `runtime.client_timeout_s`.

        Raises:
            DiskError: a checkpoint could not be written, and `runtime.on_disk_error` is `stop`.
        """
        # Only a call finds a lost actor, and no client runs a step now.
        while self._draft is not None and not self._ends(self._pool.check):
            # A whole checkpoint is not given up: its thread deletes old checkpoints, and later could delete newer ones.
            if self._draft.decide():
                what = f"no shard was written for {self._config.runtime.client_timeout_s:g} s"
                self._give_up(self._draft.manifest, TimeoutError(f"{what}, see runtime.client_timeout_s"))
                break
        self._thread = self._draft = None
        failure, self._failure = self._failure, None
        if failure is not None and self._config.runtime.on_disk_error == "stop":
            raise DiskError(failure)

    def _ends(self, check: Callable[[], None]) -> bool:
        """Waits until the writing thread ends; returns False if no shard was written for `runtime.client_timeout_s`.

        Args:
            check: called between two looks at the thread; its time does not count.
        """
        timeout_s = self._config.runtime.client_timeout_s or math.inf
        num_done, stalled_s = -1, 0.0
        while self._thread is not None and self._thread.is_alive():
            since_s = time.monotonic()
            self._thread.join(TICK_S)
            stalled_s += time.monotonic() - since_s
            before, num_done = num_done, self._draft.num_done if self._draft else 0
            if num_done != before:
                stalled_s = 0.0
            elif stalled_s > timeout_s:
                return False
            if self._thread.is_alive():
                check()
        return True

    def _begin(
        self,
        round: int,
        phase: Literal["round", "final"],
        server: _Server,
        accuracy: float | None,
        *,
        is_recorded: bool = True,
    ) -> None:
        self.wait()
        manifest = Manifest(
            run_id=self._run_id,
            round=round,
            phase=phase,
            fingerprint=self._fingerprint,
            accuracy=accuracy,
            shards=(),
            versions=self._versions,
            created=now(),
        )
        try:
            name = self._store.draft(manifest.folder, self._attempt)
        except OSError as error:
            self._give_up(manifest, error)
            self.wait()
            return
        # A client that has never worked needs no file: its state follows from the seed.
        clients = sorted(self._lineage.worked())
        unchanged = self._kept.unchanged(clients) if phase == "round" else []
        changed = sorted(set(clients).difference(unchanged))
        self._draft = _Draft(manifest, name, self._pool.save(changed, self._store, name))
        self._begun_round = round
        arguments = (self._draft, server, unchanged, is_recorded)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()
        if not self._config.checkpoint.async_:
            self.wait()

    def _write(self, draft: _Draft, server: _Server, unchanged: Sequence[int], is_recorded: bool) -> None:
        try:
            draft.shards.append(write_server(self._store, draft.name, server))
            draft.shards.extend(self._kept.take_over(draft.name, unchanged))
            shards = [*draft.shards, *(shard for saved in draft.saved for shard in saved.result())]
            whole = replace(draft.manifest, shards=tuple(shards))
            if draft.outcome.locked():
                self._store.discard(draft.name)
                return
            self._store.publish(draft.name, whole)
        # All errors, because an error that ends this thread is not reported.
        except Exception as error:
            # A draft cannot be removed while actors still write to it.
            wait(draft.saved)
            self._store.discard(draft.name)
            if draft.decide():
                self._give_up(draft.manifest, error)
            return
        if draft.decide() and whole.phase == "round":
            self._kept.add(whole, is_recorded)

    def _give_up(self, manifest: Manifest, error: BaseException) -> None:
        # Ray wraps an error that an actor raised.
        error = getattr(error, "cause", None) or error
        last = self._kept.round
        kept = f"the checkpoint of round {last} is kept" if last else "there is no earlier checkpoint"
        what = f"checkpoint {manifest.folder} could not be written ({reason(error)}); {kept}"
        self._incidents.add("checkpoints_failed", what)
        # `runtime.on_disk_error` is for disks only. After the loss of a process the next checkpoint can succeed.
        self._lost_process = not isinstance(error, OSError)
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "Free disk space and resume the run" if is_full else "Resume the run once checkpoint.dir can be written"
        self._failure = None if self._lost_process else f"{what}. {fix}, or set runtime.on_disk_error=continue."
        self._begun_round = self._kept.round
