"""What a coordinator needs of the processes that host clients, and the pool that is this process itself."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from threadpoolctl import threadpool_limits

from fedvtc.client import ClientSpec
from fedvtc.config.schema import Config
from fedvtc.data import Dataset
from fedvtc.runtime.host import ClientHost


class Pool(Protocol):
    """Runs tasks of `ClientHost` where the clients live."""

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """Runs one task for each client.

        Args:
            task: the name of a method of `ClientHost` whose first argument is a client.
            clients: who runs it.
            arguments: the same for all; sent once.

        Returns:
            The results in the order of `clients`, whoever was first, each as soon as its turn has come.

        Raises:
            ClientError: a client failed.
        """

    def close(self) -> None:
        """Ends what the pool started."""


class InlinePool:
    """All clients in this process, one after another: for debugging, for tests, for runs too small for more.

    Threads are those of an actor, so that sums are formed alike and results are the same bits.
    """

    def __init__(self, config: Config, dataset: Dataset, specs: Sequence[ClientSpec]) -> None:
        self._num_threads_before = torch.get_num_threads()
        self._blas_limit = limit_threads(config.placement.threads_per_actor)
        device = torch.device("cuda", 0) if config.placement.gpus_per_actor > 0 else torch.device("cpu")
        self._host = ClientHost(config, dataset, specs, device)

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """See `Pool.map`."""
        return (getattr(self._host, task)(client, *arguments) for client in clients)

    def close(self) -> None:
        """Gives the process its threads back."""
        # In this order: the limits that are restored were taken of PyTorch's OpenMP too, when it was already held.
        self._blas_limit.restore_original_limits()
        torch.set_num_threads(self._num_threads_before)

    def __enter__(self) -> Self:
        """The pool; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()


def limit_threads(num_threads: int) -> Any:
    """Holds PyTorch and NumPy's BLAS to this many threads; `restore_original_limits` of the result frees the BLAS."""
    torch.set_num_threads(num_threads)
    return threadpool_limits(num_threads, user_api="blas")
