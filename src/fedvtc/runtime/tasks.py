"""Tasks: the methods of `ClientHost` that a pool runs on clients.

A caller passes the function itself, as in `pool.map(ClientHost.run_round, clients, broadcast)`. Tasks travel to an
actor, and are recorded in the lineage, by name.
"""

from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

ClientTask = Callable[..., Any]
"""A method of `ClientHost` whose first argument is the number of a client."""
AnyTask = TypeVar("AnyTask", bound=ClientTask)
Arguments = TypeVarTuple("Arguments")
"""Arguments of a task after the number of the client."""
Result = TypeVar("Result")
"""Result of a task."""


def changes_client(task: AnyTask) -> AnyTask:
    """Marks a task that changes the state of its client, so that the lineage records the task for replay.

    The second argument of a marked task is a `Broadcast`. Without the mark, a task must leave its client unchanged.
    """
    task.__dict__["changes_client"] = True
    return task


def is_changing(task: ClientTask) -> bool:
    """Returns True if the task is marked by `changes_client`."""
    return getattr(task, "changes_client", False)
