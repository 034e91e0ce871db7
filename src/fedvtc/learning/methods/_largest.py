"""Largest messages of a method, counted for a plan."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fedvtc.learning.exchange.messages import Broadcast, Upload, bytes_by_kind
from fedvtc.learning.methods._own import as_result, as_step
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.server import Server


class IdleServer(Server):
    """A server that trains nothing, because training changes no size."""

    is_idle = True

    def fit(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Takes no step."""
        return {}


def undefined_sizes(method: Method[Any]) -> list[str]:
    """Returns the functions that a method of the user's own does not define, so that its bytes are unknown."""
    is_sent = {"largest_upload": method.sends_in_rounds, "largest_closing": method.has_closing}
    return [name for name, needed in is_sent.items() if needed and getattr(type(method), name) is getattr(Method, name)]


def largest_bytes(method: Method[Any], num_clients: int) -> dict[str, dict[str, int]]:
    """Returns upper bounds of the bytes of messages by payload kind, counted on messages of zeros.

    The server's half runs on one and on two uploads; the broadcast grows by the difference for each further client.

    Args:
        method: the method of the federation.
        num_clients: clients that upload.

    Returns:
        `up`: bytes of one upload, `down`: bytes of the last broadcast; both empty if `largest_upload` has no payload.
    """
    upload = _largest_upload(method)
    if not upload.payload:
        return {"up": {}, "down": {}}
    return {"up": bytes_by_kind(upload.payload), "down": _extrapolated(method, num_clients, _last)}


def run_bytes(method: Method[Any], num_clients: int) -> dict[str, dict[str, dict[str, int]]]:
    """Returns upper bounds of the bytes of a client by part of the run, direction and payload kind.

    Args:
        method: the method of the federation.
        num_clients: clients that upload.

    Returns:
        `round`: bytes of a participant of a round, `end`: bytes of every client after the last round; each with `up`
        and `down`.
    """
    messages = _largest_upload(method), _largest_closing(method)
    upload, closing = (bytes_by_kind(message.payload) for message in messages)
    if not upload and not closing:
        return {part: {"up": {}, "down": {}} for part in ("round", "end")}
    last: dict[str, int] = {}
    if method.has_closing or method.has_finish or method.has_receive:
        last = _extrapolated(method, num_clients, _last)
    if method.has_closing:
        answer = _extrapolated(method, num_clients, _closing)
        last = {kind: last.get(kind, 0) + answer.get(kind, 0) for kind in dict.fromkeys([*last, *answer])}
    return {
        "round": {"up": upload, "down": _extrapolated(method, num_clients, _of_round)},
        "end": {"up": closing, "down": last},
    }


def _extrapolated(
    method: Method[Any], num_clients: int, broadcast_of: Callable[[Method[Any], int], Broadcast]
) -> dict[str, int]:
    """Counts a broadcast on one and on two uploads; it grows by the difference for each further client."""
    one, two = (_broadcast_bytes(broadcast_of(method, num_uploads)) for num_uploads in (1, 2))
    return {kind: size + (two[kind] - size) * (num_clients - 1) for kind, size in one.items()}


def _broadcast_bytes(broadcast: Broadcast) -> dict[str, int]:
    groups = [bytes_by_kind(broadcast.seen_by(backbone).payload) for backbone in broadcast.groups]
    return max(groups, key=lambda kinds: sum(kinds.values()), default=bytes_by_kind(broadcast.payload))


def _round(method: Method[Any], num_uploads: int) -> tuple[ServerState, Broadcast]:
    """Runs the server's half of a round on the largest uploads."""
    upload, (state, _) = _largest_upload(method), as_step(method.start(), method, "start")
    uploads = (replace(upload, client=client) for client in range(num_uploads))
    found = method.server_round(state, uploads, IdleServer(method.task.seed, upload.round))
    return as_step(found, method, "server_round")


def _of_round(method: Method[Any], num_uploads: int) -> Broadcast:
    return _round(method, num_uploads)[1]


def _last(method: Method[Any], num_uploads: int) -> Broadcast:
    return method.last_broadcast(*_round(method, num_uploads))


def _closing(method: Method[Any], num_uploads: int) -> Broadcast:
    state, upload = _round(method, num_uploads)[0], _largest_closing(method)
    uploads = (replace(upload, client=client) for client in range(num_uploads))
    found = method.closing_server(state, uploads, IdleServer(method.task.seed, upload.round))
    return as_result(found, Broadcast, method, "closing_server")


def _largest_upload(method: Method[Any]) -> Upload:
    return as_result(method.largest_upload(), Upload, method, "largest_upload")


def _largest_closing(method: Method[Any]) -> Upload:
    return as_result(method.largest_closing(), Upload, method, "largest_closing")
