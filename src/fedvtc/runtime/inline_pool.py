"""The pool that is this process itself."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError
from fedvtc.learning.data import Dataset
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.balance import Workload
from fedvtc.runtime.device import inline_device, limit_threads
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import CHANGING, Lineage, Step
from fedvtc.runtime.retries import Verdicts
from fedvtc.storage.checkpoints import CheckpointStore, Shard


class InlinePool:
    """All clients in this process, one after another: for debugging, for tests, for runs too small for more.

    Threads are those of an actor, so that sums are formed alike and results are the same bits.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        specs: Sequence[ClientSpec],
        lineage: Lineage | None = None,
        incidents: Incidents | None = None,
    ) -> None:
        self._num_threads_before = torch.get_num_threads()
        self._blas_limit = limit_threads(config.placement.threads_per_actor)
        self._config, self._lineage = config, lineage or Lineage()
        self._incidents = incidents or Incidents(lambda text: None)
        self._host = ClientHost(config, dataset, specs, inline_device(config.placement))
        self._workload = Workload({spec.client: float(len(spec.indices_N)) for spec in specs})
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def map(self, task: str, clients: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """See `Pool.map`."""
        step = self._lineage.begin(task, arguments[0].round + 1, arguments[0]) if task in CHANGING else None
        verdicts = Verdicts(self._config.runtime, self._incidents, task)
        if task == "run_round":
            self._workload.begin([clients])
        for client in clients:
            result = self._result(task, client, arguments, step, verdicts)
            if isinstance(result, Upload):
                self._workload.done(client, self._host, result.scalars["time/client"])
            yield result

    def _result(self, task: str, client: int, arguments: Sequence[Any], step: Step | None, verdicts: Verdicts) -> Any:
        while True:
            try:
                result = self._host.perform(task, client, *arguments)
            except ClientError as error:
                again = verdicts.try_again(error)
                self.restore([client])
                if not again:
                    return error
            else:
                if step is not None:
                    step.clients.add(client)
                return result

    def restore(self, clients: Sequence[int]) -> None:
        """See `Pool.restore`."""
        for client in clients:
            for damage in self._host.perform("rebuild", client, self._lineage.history(client)):
                self._incidents.add("checkpoints_damaged", damage)

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[Shard]]:
        """See `Pool.save`."""
        for client in clients:
            self._host.hold(client)
        return [self._writer.submit(self._host.save, client, store, draft) for client in clients]

    def record(self) -> dict[str, float]:
        """See `Pool.record`."""
        return {"placement/actors": 1, **self._workload.record()}

    def close(self) -> None:
        """Gives the process its threads back."""
        self._writer.shutdown()
        # In this order: the limits that are restored were taken of PyTorch's OpenMP too, when it was already held.
        self._blas_limit.restore_original_limits()
        torch.set_num_threads(self._num_threads_before)

    def __enter__(self) -> Self:
        """The pool; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()
