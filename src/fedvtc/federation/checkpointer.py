"""When a run writes checkpoints, and which it keeps; the files are `fedvtc.storage.checkpoints`'s."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import UTC, datetime

from fedvtc.config import fingerprint
from fedvtc.config.schema import Config
from fedvtc.errors import DiskError, first_line
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import ServerState
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.pool import Pool
from fedvtc.storage import versions
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, Shard, shard_name
from fedvtc.storage.checkpoints.contents import write_server

_Server = tuple[ServerState, Broadcast] | None
TICK_S = 1.0
"""Seconds between looks at actors while a checkpoint is waited for."""


class Checkpointer:
    """Writes checkpoints beside the rounds that follow, one at a time.

    Args:
        config: of the run; without `checkpoint.every` nothing is written.
        store: where.
        pool: where the clients live.
        lineage: forgets what a whole checkpoint makes superfluous.
        incidents: hear of checkpoints that failed.
        run_id: of the run folder.
        attempt: number of the attempt, from 1.
        start: the checkpoint that the run goes on from; None for a new run.
        on_first: called once the first checkpoint of a round is whole, by the thread that wrote it.
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
        self._on_first = on_first
        self._config, self._store, self._pool = config, store, pool
        self._lineage, self._incidents = lineage, incidents
        self._run_id, self._attempt = run_id, attempt
        self._fingerprint, self._versions = fingerprint(config), versions.installed()
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._lost_process = False
        self._clients = range(config.population.num_clients)
        self._kept = [start] if start else []
        self._recorded = self._kept
        self._saving: list[Future[Shard]] = []
        self._begun_round = self._saved_round

    def is_due(self, round: int, *, is_last: bool) -> bool:
        """Whether the end of this round is saved.

        Args:
            round: that is done.
            is_last: whether the run ends here, in time or before.
        """
        every = self._config.checkpoint.every
        return every is not None and (round % every == 0 or is_last)

    def covers(self, round: int) -> bool:
        """Whether a run that ends here loses nothing up to the end of this round."""
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
        """Saves the end of a round, from which the run can go on.

        Args:
            round: the last one that is done.
            state: of the server.
            broadcast: that the next round starts with.
            accuracy: mean generalization accuracy, where the round has an evaluation.
            is_recorded: whether the records are on the disk up to this round; as long as they are not, the checkpoints
                of the last round where they were stay, for the run may have to go on from there.

        Raises:
            DiskError: a checkpoint could not be written, and the policy is to stop.
        """
        self._begin(round, "round", (state, broadcast), accuracy, is_recorded=is_recorded)

    def save_final(self, round: int, accuracy: float | None) -> None:
        """Saves the clients as they are at the end of the run: the models that it was for.

        Raises:
            DiskError: it could not be written, and the policy is to stop.
        """
        if self._config.checkpoint.every is None:
            return
        for _ in range(1 + self._config.runtime.retries):
            self._lost_process = False
            self._begin(round, "final", None, accuracy)
            self.wait()
            if not self._lost_process:
                return

    def abandon(self) -> None:
        """Returns once nothing is being written, at the end of a run that may have ended in any way.

        Actors may be at work or gone then, so none is asked; they hang if none has written a shard for as long as a
        step may take.
        """
        timeout_s = self._config.runtime.client_timeout_s or math.inf
        num_left, since_s = -1, time.monotonic()
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(TICK_S)
            before, num_left = num_left, sum(not saved.done() for saved in self._saving)
            if num_left != before or num_left == 0:
                since_s = time.monotonic()
            elif time.monotonic() - since_s > timeout_s:
                return

    def wait(self) -> None:
        """Returns once nothing is being written. No actor may be at work; those that are lost or hang are replaced.

        Raises:
            DiskError: a checkpoint could not be written, and the policy is to stop.
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(TICK_S)
            if self._thread.is_alive():
                # No step runs that would notice an actor that is lost: any call does.
                for _ in self._pool.map(ClientHost.process_id, self._clients):
                    pass
        self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None and self._config.runtime.on_disk_error == "stop":
            raise DiskError(failure)

    def _begin(
        self, round: int, phase: str, server: _Server, accuracy: float | None, *, is_recorded: bool = True
    ) -> None:
        # One at a time: where writing takes longer than a round, rounds wait.
        self.wait()
        manifest = Manifest(
            run_id=self._run_id,
            round=round,
            phase="final" if phase == "final" else "round",
            fingerprint=self._fingerprint,
            accuracy=accuracy,
            shards=(),
            versions=self._versions,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            draft = self._store.draft(manifest.folder, self._attempt)
        except OSError as error:
            self._give_up(manifest, error)
            self.wait()
            return
        known = self._taken_over(draft) if phase == "round" else {}
        changed = [client for client in self._clients if client not in known]
        self._saving = saved = self._pool.save(changed, self._store, draft)
        self._begun_round = round
        arguments = (manifest, draft, server, list(known.values()), saved, is_recorded)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()
        if not self._config.checkpoint.async_:
            self.wait()

    def _taken_over(self, draft: str) -> dict[int, Shard]:
        """The shards of clients that are as they were two checkpoints ago, now in the draft too.

        Not those of the last one: what is damaged in one of the two newest checkpoints must be whole in the other.
        """
        if len(self._kept) < 2:
            return {}
        before = self._kept[1]
        unchanged = set(self._clients) - self._lineage.changed_since(before.round)
        shards = {client: self._store.take_over(draft, before, shard_name(client)) for client in sorted(unchanged)}
        return {client: shard for client, shard in shards.items() if shard is not None}

    def _write(
        self,
        manifest: Manifest,
        draft: str,
        server: _Server,
        known: Sequence[Shard],
        saved: Sequence[Future[Shard]],
        is_recorded: bool,
    ) -> None:
        try:
            shards = [write_server(self._store, draft, server), *known]
            shards += [future.result() for future in saved]
            self._store.publish(draft, replace(manifest, shards=tuple(shards)))
        # Whatever it is: in a thread of its own it would go unheard.
        except Exception as error:
            # A draft that is still written to cannot be removed.
            wait(saved)
            self._store.discard(draft)
            self._give_up(manifest, error)
            return
        if manifest.phase == "round":
            self._published(replace(manifest, shards=tuple(shards)), is_recorded)

    def _published(self, whole: Manifest, is_recorded: bool) -> None:
        checkpoint = self._config.checkpoint
        self._kept = [whole, *self._kept][: checkpoint.keep]
        self._lineage.saved(self._kept)
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        if is_recorded:
            self._recorded = self._kept
        try:
            self._store.prune([*self._kept, *self._recorded], checkpoint.keep_best)
        except OSError as error:
            self._incidents.add("disk_errors", f"old checkpoints could not be deleted ({_why(error)})")

    def _give_up(self, manifest: Manifest, error: BaseException) -> None:
        # What went wrong in an actor comes wrapped.
        error = getattr(error, "cause", None) or error
        kept = f"the one of round {self._saved_round} is kept" if self._kept else "there is none before it"
        what = f"checkpoint {manifest.folder} could not be written ({_why(error)}); {kept}"
        self._incidents.add("checkpoints_failed", what)
        # A lost process is no matter of the disk; the next checkpoint has another.
        self._lost_process = not isinstance(error, OSError)
        self._failure = None if self._lost_process else what
        self._begun_round = self._saved_round

    @property
    def _saved_round(self) -> int:
        return self._kept[0].round if self._kept else 0


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Ray tells the loss of a process in a page; its first line says it.
    return first_line(error).rstrip(".")
