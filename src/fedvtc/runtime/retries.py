"""What is done about a client whose step failed."""

from collections import Counter

from fedvtc.config.operation import RuntimeConfig
from fedvtc.errors import ClientError
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import CHANGING


class Verdicts:
    """Judges the errors of one task on many clients.

    Args:
        config: `on_client_error` and `retries`.
        incidents: hear of every error that does not end the run.
        task: the name of a task of `ClientHost`.
    """

    def __init__(self, config: RuntimeConfig, incidents: Incidents, task: str) -> None:
        self._config, self._incidents, self._task = config, incidents, task
        self._num_tries: Counter[int] = Counter()

    def try_again(self, error: ClientError) -> bool:
        """Whether the client's step is tried again; if not, the client sits this round out.

        Raises:
            ClientError: the error, where it ends the run.
        """
        self._num_tries[error.client] += 1
        if self._config.on_client_error == "retry" and self._num_tries[error.client] <= self._config.retries:
            self._incidents.add("steps_retried", f"{error}; trying again")
            return True
        return self._leave_out(error)

    def try_elsewhere(self, client: int, round: int, reason: str) -> bool:
        """The same for a client whose process was lost while it was at work, whatever `on_client_error` says.

        Raises:
            ClientError: it lost its process again and again.
        """
        self._num_tries[client] += 1
        if self._num_tries[client] <= self._config.retries:
            return True
        return self._leave_out(self._lost_again(client, round, reason))

    def rebuild_elsewhere(self, client: int, round: int, reason: str) -> None:
        """The same for one whose process was lost while it was built again: there is no step that it could sit out.

        Raises:
            ClientError: it lost its process again and again.
        """
        self._num_tries[client] += 1
        if self._num_tries[client] > self._config.retries:
            raise self._lost_again(client, round, reason)

    def _lost_again(self, client: int, round: int, reason: str) -> ClientError:
        what = f"lost its process {self._num_tries[client]} times, at last because {reason}"
        return ClientError(client, round, self._task, what)

    def _leave_out(self, error: ClientError) -> bool:
        # A client that cannot be measured cannot be left out: the record would be of other clients than the last one.
        if self._config.on_client_error != "skip" or self._task not in CHANGING:
            raise error
        self._incidents.add("clients_skipped", f"{error}; left out of this round")
        return False
