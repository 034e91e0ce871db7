"""The results of one call of an actor: a task on several clients, one result after another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray import ObjectRef

from fedvtc.errors import FedvtcError


class Failed(NamedTuple):
    """The result of a client whose task raised an error: an exception would end the stream for the clients after it."""

    error: FedvtcError


class Stream:
    """References of the results, in the order of the clients.

    A call for each client would cost both processes more than the training of a small client: arguments that are
    resolved again, and a message in each direction.

    Args:
        generator: Ray's generator of the call.
        clients: the clients of the call.

    Attributes:
        generator: ready for `ray.wait` once the actor has produced a further result.
    """

    def __init__(self, generator: Any, clients: Sequence[int]) -> None:
        self.generator, self._clients = generator, clients
        self._place_of = {client: place for place, client in enumerate(clients)}
        self._references: dict[int, ObjectRef[Any]] = {}
        self._num_read, self._has_ended = 0, False
        self._last: ObjectRef[Any] | None = None

    @property
    def left(self) -> Sequence[int]:
        """The clients without a result that `pull` has read."""
        return () if self._has_ended else self._clients[self._num_read :]

    def pull(self) -> None:
        """Reads the references of all results that the actor has produced."""
        self._read(len(self._clients) - 1)

    def result_of(self, client: int) -> ObjectRef[Any] | None:
        """Returns the reference of the client's result; None if the actor has not produced the result yet.

        If the actor was lost, the clients without a result share a reference that raises Ray's error.
        """
        place = self._place_of[client]
        self._read(place)
        return self._references.get(place, self._last if self._has_ended else None)

    def release(self, client: int) -> None:
        """Drops the reference of a client's result, so that Ray can free the result before the call ends."""
        self._references.pop(self._place_of[client], None)

    def _read(self, place: int) -> None:
        """Reads the references up to this place, as far as the actor has produced the results."""
        while place >= self._num_read and not self._has_ended and ray.wait([self.generator], timeout=0)[0]:
            try:
                self._last = self._references[self._num_read] = next(self.generator)
                self._num_read += 1
            except StopIteration:
                # Only the loss of the actor ends a call early, and then the last result is Ray's error.
                self._has_ended = True
