"""Decides after a failure of a client: retry the task, skip the client, or end the run."""

from collections import Counter

from fedvtc.config.operation import RuntimeConfig
from fedvtc.errors import ClientError
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.tasks import ClientTask, is_changing


class Retries:
    """Counts the failures of each client during one task, and decides after each failure.

    Errors of a client and losses of its process share one count, limited by `runtime.retries`.

    Args:
        config: the config section with `on_client_error` and `retries`.
        incidents: reports every error that does not end the run.
        task: the task that the clients run.
    """

    def __init__(self, config: RuntimeConfig, incidents: Incidents, task: ClientTask) -> None:
        self._config, self._incidents, self._task = config, incidents, task
        self._num_failures: Counter[int] = Counter()

    def after_error(self, error: ClientError) -> bool:
        """Returns True if the client retries the task, False if the client is skipped this round.

        Raises:
            ClientError: the given error, if the error ends the run.
        """
        self._num_failures[error.client] += 1
        if self._config.on_client_error == "retry" and self._num_failures[error.client] <= self._config.retries:
            self._incidents.add("steps_retried", f"{error}; trying again")
            return True
        self._skip(error)
        return False

    def after_lost_process(self, client: int, round: int, reason: str) -> bool:
        """Decides after the process of a client was lost during the task, under any `on_client_error`.

        Returns:
            True if the client retries the task in a new process, False if the client is skipped this round.

        Raises:
            ClientError: the client lost its process too often, and cannot be skipped.
        """
        self._num_failures[client] += 1
        if self._num_failures[client] <= self._config.retries:
            return True
        self._skip(self._lost_too_often(client, round, reason))
        return False

    def after_lost_rebuild(self, client: int, round: int, reason: str) -> None:
        """Counts a process that was lost during the rebuild of a client; a rebuild cannot be skipped.

        Raises:
            ClientError: the client lost its process too often.
        """
        self._num_failures[client] += 1
        if self._num_failures[client] > self._config.retries:
            raise self._lost_too_often(client, round, reason)

    def _lost_too_often(self, client: int, round: int, reason: str) -> ClientError:
        times = self._num_failures[client]
        why = f"lost its process {times} time{'s' if times > 1 else ''}, the last time because {reason}"
        return ClientError(client, round, self._task.__name__, why)

    def _skip(self, error: ClientError) -> None:
        # An evaluation without one client would give means over other clients than in earlier records.
        if self._config.on_client_error != "skip" or not is_changing(self._task):
            raise error
        self._incidents.add("clients_skipped", f"{error}; left out of this round")
