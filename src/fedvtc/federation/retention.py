"""Deletes old checkpoints, and links unchanged files of an earlier checkpoint into the next checkpoint."""

from collections.abc import Callable, Iterable

from fedvtc.config.operation import CheckpointConfig
from fedvtc.errors import first_line
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
        self._recorded = self._newest
        """The newest checkpoints at the time when the records on the disk last reached the newest checkpoint."""

    @property
    def round(self) -> int:
        """The last saved round; 0 if there is no checkpoint."""
        return self._newest[0].round if self._newest else 0

    def take_over(self, draft: str, clients: Iterable[int]) -> dict[int, Shard]:
        """Links shards of the second newest checkpoint into a draft, for clients that have not changed since.

        Not of the newest checkpoint: after damage to one of the two newest checkpoints the other must be whole.

        Returns:
            The shards in the draft by client.
        """
        if len(self._newest) < 2:
            return {}
        before = self._newest[1]
        unchanged = set(clients) - self._lineage.changed_since(before.round)
        shards = {client: self._store.take_over(draft, before, shard_name(client)) for client in sorted(unchanged)}
        return {client: shard for client, shard in shards.items() if shard is not None}

    def add(self, whole: Manifest, is_recorded: bool) -> None:
        """Adds a whole checkpoint and deletes those that are not kept; called by the writing thread.

        Args:
            whole: the new checkpoint.
            is_recorded: True if the records on the disk reach the checkpoint's round. Until then, the checkpoints of
                the last recorded round are kept too, because a resume may have to continue from these.
        """
        self._newest = [whole, *self._newest][: self._config.keep]
        self._lineage.saved(self._newest)
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
