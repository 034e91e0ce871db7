"""Largest messages of a method, counted for a plan."""

from dataclasses import replace
from typing import Any

from fedvtc.learning.exchange.messages import Upload, bytes_by_kind
from fedvtc.learning.methods.base import Method
from fedvtc.learning.server import Server


def largest_bytes(method: Method[Any], num_clients: int) -> dict[str, dict[str, int]]:
    """Returns upper bounds of the bytes of messages by payload kind, counted on messages of zeros.

    The server's half runs on one and on two uploads; the broadcast grows by the difference for each further client.

    Args:
        method: the method of the federation.
        num_clients: clients that upload.

    Returns:
        `up`: bytes of one upload, `down`: bytes of the last broadcast; both empty if `largest_upload` has no payload.
    """
    upload = method.largest_upload()
    if not upload.payload:
        return {"up": {}, "down": {}}
    one, two = (_broadcast_bytes(method, upload, num_uploads) for num_uploads in (1, 2))
    down = {kind: size + (two[kind] - size) * (num_clients - 1) for kind, size in one.items()}
    return {"up": bytes_by_kind(upload.payload), "down": down}


def _broadcast_bytes(method: Method[Any], upload: Upload, num_uploads: int) -> dict[str, int]:
    state, _ = method.start()
    uploads = (replace(upload, client=client) for client in range(num_uploads))
    server = Server(method.task.seed, upload.round)
    broadcast = method.last_broadcast(*method.server_round(state, uploads, server))
    groups = [bytes_by_kind(broadcast.seen_by(backbone).payload) for backbone in broadcast.groups]
    return max(groups, key=lambda kinds: sum(kinds.values()), default=bytes_by_kind(broadcast.payload))
