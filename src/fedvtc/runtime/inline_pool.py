"""Pool in this process, without Ray."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError
from fedvtc.learning.data import Dataset
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.balance import Workload
from fedvtc.runtime.device import PROCESS_THREADS, inline_device, keep_freed_memory
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage, Step
from fedvtc.runtime.retries import Retries
from fedvtc.runtime.tasks import Arguments, ClientTask, Result, is_changing
from fedvtc.storage.checkpoints import CheckpointStore, Shard


class InlinePool:
    """Runs all clients in this process, one after another: for debugging, for tests, for small runs.

    The pool limits threads to the number of an actor, so that sums are formed in the same order as in actors.

    Args:
        config: the run's config.
        dataset: the images of all clients.
        specs: the clients to host.
        lineage: records the steps of the clients; a new lineage if None.
        incidents: reports failed clients and damaged checkpoints; nothing is reported if None.
        idle_folder: folder for the states of idle clients, as in `ClientHost`.

    Raises:
        ConfigError: a pool in another thread has another number of threads.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        specs: Sequence[ClientSpec],
        lineage: Lineage | None = None,
        incidents: Incidents | None = None,
        idle_folder: Path | None = None,
    ) -> None:
        self._config, self._lineage = config, lineage or Lineage()
        self._incidents = incidents or Incidents(lambda text: None)
        self._workload = Workload(
            {spec.client: float(len(spec.indices_N)) for spec in specs}, {spec.client: spec.backbone for spec in specs}
        )
        keep_freed_memory()
        # A stack, because a signal that ends one of the parts' closing must not leave the threads limited.
        with ExitStack() as parts:
            parts.enter_context(PROCESS_THREADS.held(config.placement.threads_per_actor))
            self._host = ClientHost(config, dataset, specs, inline_device(config.placement), idle_folder)
            parts.callback(self._host.close)
            self._writer = parts.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint"))
            self._parts = parts.pop_all()

    def map(
        self, task: Callable[[ClientHost, int, *Arguments], Result], clients: Sequence[int], *arguments: *Arguments
    ) -> Iterator[Result | ClientError]:
        """Runs one task on each client, as `Pool.map` says; each client works when its result is requested."""
        return self._results(task, clients, arguments)

    def _results(self, task: ClientTask, clients: Sequence[int], arguments: Sequence[Any]) -> Iterator[Any]:
        step = None
        if is_changing(task):
            step = self._lineage.begin(task, arguments[0].round + 1, arguments[0], arguments[0].num_bytes)
        retries = Retries(self._config.runtime, self._incidents, task)
        if task is ClientHost.run_round:
            self._workload.begin([clients])
        for client in clients:
            result = self._result(task, client, arguments, step, retries)
            if task is ClientHost.run_round and isinstance(result, Upload):
                self._workload.done(client, self._host, result.scalars["time/client"])
            yield result

    def _result(
        self, task: ClientTask, client: int, arguments: Sequence[Any], step: Step | None, retries: Retries
    ) -> Any:
        while True:
            try:
                result = self._host.perform(task, client, *arguments)
            except ClientError as error:
                is_retried = retries.after_error(error)
                self.restore([client])
                if not is_retried:
                    return error
            else:
                if step is not None:
                    step.clients.add(client)
                return result

    def restore(self, clients: Sequence[int]) -> None:
        """Rebuilds the clients from the lineage, as `Pool.restore` says."""
        for client in clients:
            for damage in self._host.perform(ClientHost.rebuild, client, self._lineage.history(client)):
                self._incidents.add("checkpoints_damaged", damage)

    def save(self, clients: Sequence[int], store: CheckpointStore, draft: str) -> list[Future[list[Shard]]]:
        """Starts to write the present state of each client in a thread, as `Pool.save` says."""
        for client in clients:
            self._host.hold(client)
        return [self._writer.submit(self._host.save, [client], store, draft) for client in clients]

    def check(self) -> None:
        """Does nothing: this process is there."""

    def record(self) -> dict[str, float]:
        """Returns the measurements of the last round's placement, as `Pool.record` says."""
        return {"placement/actors": 1, **self._workload.record()}

    def close(self) -> None:
        """Ends the thread that writes, and restores the number of threads that the process had before."""
        self._parts.close()

    def __enter__(self) -> Self:
        """Returns the pool; the end of the block closes the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the pool."""
        self.close()
