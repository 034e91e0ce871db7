"""What a coordinator needs of the processes that host clients."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from fedvtc.storage.checkpoints import CheckpointStore, Shard


class Pool(Protocol):
    """Runs tasks of `ClientHost` where the clients live."""

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """Runs one task for each client.

        Args:
            task: the name of a method of `ClientHost` whose first argument is a client.
            clients: who runs it.
            arguments: the same for all; sent once. The first one of a changing task is a `Broadcast`.

        Returns:
            The results in the order of `clients`, whoever was first, each as soon as its turn has come. A client that
            sits the round out has its `ClientError` in place of a result, and is as it was before.

        Raises:
            ClientError: a client failed, and `runtime.on_client_error` ends the run for that.
        """

    def restore(self, clients: Sequence[int]) -> None:
        """Makes the clients what the lineage says that they are.

        Raises:
            CheckpointError: a checkpoint is damaged, and there is no other.
        """

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[Shard]]:
        """Begins to write the state that each client has now; returns at once.

        The futures raise OSError where a state cannot be written, and another error where its process was lost.
        """

    def record(self) -> dict[str, float]:
        """How the last round was spread over processes, by names of `ROUND_METRICS`."""

    def close(self) -> None:
        """Ends what the pool started."""
