"""Errors of fedvtc and the exit codes of the program.

The message of a `UserError` is one line: the fault, where it was set, and the remedy; a `ConfigError` has one line for
each problem. Any other exception is a crash with a traceback.
"""

import signal
import textwrap
from collections.abc import Sequence

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USER_ERROR = 2
EXIT_SIGNAL = 128
"""A signal ends the program with this code plus the number of the signal."""
WARNING_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a run like SIGTERM: of a lost terminal, and of Slurm before a job's time is over."""
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

FAILURES = (Exception, SystemExit)
"""Errors that a library or a user's own code may raise. Ctrl-C is not a failure of such code."""
MAX_REASON_LETTERS = 200


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or the name of the error's class if the text is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason(error: BaseException) -> str:
    """Formats kind and text of an error as one line."""
    # All lines of the text, because the first line of a validation error only counts the problems.
    text = textwrap.shorten(str(error), MAX_REASON_LETTERS).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def count_of(num: int, noun: str) -> str:
    """Returns a number with its noun, such as `1 round`, `2 rounds` or `3 classes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{num} {noun if num == 1 else plural}"


class FedvtcError(Exception):
    """Base of every error that fedvtc raises on purpose."""


class UserError(FedvtcError):
    """An error that the user can fix. The program shows the message without a traceback."""


class ConfigError(UserError):
    """All problems of a config, one line each.

    Attributes:
        problems: one line for each problem: the key, the fault, the file and line, and the remedy.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set or partition that is absent, damaged or impossible."""


class RunFolderError(UserError):
    """A run folder that is missing, damaged, in use, or cannot be read or written."""


class RunExistsError(RunFolderError):
    """A file or folder that already has the name of a new run."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, cannot be read, or belongs to another run."""


class ClusterError(UserError):
    """A cluster that cannot be reached, or is too small for the run."""


class ClientError(FedvtcError):
    """A client that raised an error or returned values that are not finite.

    The error is raised in an actor and pickled for the coordinator, so all state is in `args`.

    Attributes:
        client: number of the client.
        round: number of the round.
        phase: phase of the round, or name of the task.
        reason: the fault in words.
        trace: the traceback of an unexpected error; empty for an expected error.
    """

    def __init__(self, client: int, round: int, phase: str, reason: str, trace: str = "") -> None:
        super().__init__(client, round, phase, reason, trace)
        self.client, self.round, self.phase, self.reason = client, round, phase, reason
        self.trace = trace

    def __str__(self) -> str:
        return f"client {self.client}, round {self.round}, {self.phase}: {self.reason}"


class ClientMemoryError(ClientError):
    """A client that ran out of memory; the client's process may be damaged and is replaced."""


class ServerError(FedvtcError):
    """A loss on the server that is not finite.

    Attributes:
        round: number of the round.
        phase: phase of the server's step.
        reason: the fault in words.
    """

    def __init__(self, round: int, phase: str, reason: str) -> None:
        super().__init__(round, phase, reason)
        self.round, self.phase, self.reason = round, phase, reason

    def __str__(self) -> str:
        return f"server, round {self.round}, {self.phase}: {self.reason}"


class DiskError(FedvtcError):
    """A full or read-only disk with `runtime.on_disk_error=stop`."""


class TooFewClientsError(FedvtcError):
    """A round with fewer uploads than `runtime.min_clients`."""


class Interrupted(KeyboardInterrupt):
    """A request to end the run, by Ctrl-C or another signal.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
