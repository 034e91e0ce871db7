"""What can go wrong, and the exit code each kind ends the program with.

A `UserError` is one clear line: what is wrong, where it was set, what would work. Everything else is a crash.
"""

from collections.abc import Sequence

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def first_line(error: BaseException) -> str:
    """The first line of an error's text; the kind of the error where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class FedvtcError(Exception):
    """Base of every error that fedvtc raises on purpose."""


class UserError(FedvtcError):
    """Something that the user can mend; the message is the whole story, no trace is shown."""


class ConfigError(UserError):
    """All problems of one config, one line each.

    Attributes:
        problems: one line per problem: the key, what is wrong, where it was set, what would work.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set or a partition that is absent, damaged or impossible."""


class RunFolderError(UserError):
    """A run folder that cannot be written, or already holds a run."""


class RunExistsError(RunFolderError):
    """A run folder of the name that a new run was to have."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, or does not belong to the run."""


class ClusterError(UserError):
    """A cluster that cannot be reached, or is too small for what was asked."""


class ClientError(FedvtcError):
    """A client whose work failed, or gave values that are not finite.

    Raised on the worker and carried to the coordinator, so it must survive pickling: all state is in `args`.

    Attributes:
        trace: where in the code it happened, for an error that nobody foresaw; else empty.
    """

    def __init__(self, client: int, round: int, phase: str, reason: str, trace: str = "") -> None:
        super().__init__(client, round, phase, reason, trace)
        self.client, self.round, self.phase, self.reason = client, round, phase, reason
        self.trace = trace

    def __str__(self) -> str:
        return f"client {self.client}, round {self.round}, {self.phase}: {self.reason}"


class ClientMemoryError(ClientError):
    """A client that ran out of memory; what is left of its process is not trusted."""


class DiskError(FedvtcError):
    """A disk that is full or read-only, where the policy is to stop."""


class TooFewClientsError(FedvtcError):
    """A round with fewer uploads than `runtime.min_clients`."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to end, by Ctrl-C or SIGTERM.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
