"""Deletes old checkpoints, and links unchanged files of an earlier checkpoint into the next checkpoint."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from fedvtc.config.operation import CheckpointConfig
from fedvtc.errors import CheckpointError, first_line
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, Shard, shard_name


class KeptCheckpoints:
    """The newest whole checkpoints of a run, at most `checkpoint.keep`.

    Args:
        config: number of checkpoints to keep.
        store: the store of the run's checkpoints.
        lineage: drops the steps that a whole checkpoint covers.
        incidents: receives old checkpoints that cannot be deleted.
        start: the checkpoint that the run continues from; None for a new run.
        on_first: called once, after the first checkpoint was added.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        store: CheckpointStore,
        lineage: Lineage,
        incidents: Incidents,
        start: Manifest | None,
        on_first: Callable[[], None] | None,
    ) -> None:
        self._config, self._store, self._lineage, self._incidents = config, store, lineage, incidents
        self._on_first = on_first
        self._newest = [start] if start else []
        self._unshared: set[int] = set()
        """Clients whose shards the last checkpoint could not take over."""
        self._recorded = self._newest
        """The newest checkpoints at the time when the records on the disk last reached the newest checkpoint."""

    @property
    def round(self) -> int:
        """The last saved round; 0 if there is no checkpoint."""
        return self._newest[0].round if self._newest else 0

    def unchanged(self, clients: Iterable[int]) -> list[int]:
        """Returns the clients whose shards the next checkpoint can take over.

        These have not changed since the second newest checkpoint. Not the newest: after damage to one of the two newest
        checkpoints the other must be whole.
        """
        if len(self._newest) < 2:
            return []
        before = self._newest[1]
        unchanged = before.clients.intersection(clients) - self._lineage.changed_since(before.round)
        return sorted(unchanged - self._unshared)

    def take_over(self, draft: str, unchanged: Sequence[int]) -> Iterator[Shard]:
        """Puts the shards of unchanged clients into a draft and yields each; called by the writing thread.

        A shard that cannot be shared is copied by this process. The next checkpoint gets the shard of such a client
        from the client's own process again, so that this process does not copy the same shards each time.

        Raises:
            CheckpointError: the shard of a client is damaged in both of the two newest checkpoints.
        """
        self._unshared = set(unchanged)
        names = {shard_name(client): client for client in unchanged}
        shared = self._store.take_over(draft, self._newest[1], names) if names else []
        yield from shared
        for shard in shared:
            del names[shard.name]
        for name in names:
            yield self._copied(draft, name)
        self._unshared = set(names.values())

    def _copied(self, draft: str, name: str) -> Shard:
        newest, before = self._newest[:2]
        try:
            return self._store.copy(draft, before, name)
        except CheckpointError:
            # The client did not change in between.
            return self._store.copy(draft, newest, name)

    def add(self, whole: Manifest, is_recorded: bool) -> None:
        """Adds a whole checkpoint and deletes those that are not kept; called by the writing thread.

        Args:
            whole: the new checkpoint.
            is_recorded: True if the records on the disk reach the checkpoint's round. Until then, the checkpoints of
                the last recorded round are kept too, because a resume may have to continue from these.
        """
        self._newest = [whole, *self._newest][: self._config.keep]
        # Two, because the newest may be damaged. With more, the steps since the oldest would fill the memory.
        self._lineage.saved(self._newest[:2])
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        if is_recorded:
            self._recorded = self._newest
        try:
            self._store.prune([*self._newest, *self._recorded], self._config.keep_best)
        except OSError as error:
            self._incidents.add("disk_errors", f"old checkpoints could not be deleted ({reason(error)})")


def reason(error: BaseException) -> str:
    """Returns the reason of a failed write, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Ray reports a lost process in a page of text, with the reason in its first line.
    return first_line(error).rstrip(".")
