"""Contract between a coordinator and the processes that host its clients."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

from fedvtc.errors import ClientError
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.tasks import Arguments, Result
from fedvtc.storage.checkpoints import CheckpointStore, Shard


class Pool(Protocol):
    """Runs tasks, which are methods of `ClientHost`, in the processes that host the clients."""

    def map(
        self, task: Callable[[ClientHost, int, *Arguments], Result], clients: Sequence[int], *arguments: *Arguments
    ) -> Iterator[Result | ClientError]:
        """Runs one task on each client, as in `pool.map(ClientHost.run_round, clients, broadcast)`.

        Args:
            task: a method of `ClientHost` whose first argument is the number of a client.
            clients: the clients to run the task on.
            arguments: the other arguments of the task, equal for all clients; each is sent once.

        Returns:
            The results in the order of `clients`, each as soon as this result and all results before it exist. The
            result of a skipped client is a `ClientError`; the state of the client is as before the task.

        Raises:
            ClientError: a client failed, and `runtime.on_client_error` ends the run.
        """

    def restore(self, clients: Sequence[int]) -> None:
        """Rebuilds the clients from the lineage.

        Raises:
            CheckpointError: every checkpoint that a client could start from is damaged.
        """

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[list[Shard]]]:
        """Starts to write the present state of each client; returns at once.

        A future has the shards of one or several clients. A future raises OSError if a state cannot be written, and
        another error if the process of a client is lost.
        """

    def check(self) -> None:
        """Returns once every process of clients answers; replaces lost processes. No client may be busy."""

    def record(self) -> dict[str, float]:
        """Returns measurements of the last round's placement on processes, by names of `ROUND_METRICS`."""

    def close(self) -> None:
        """Ends the processes and threads of the pool."""
