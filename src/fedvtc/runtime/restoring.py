"""Loads a client's checkpoint, before the steps since the checkpoint run again."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from fedvtc.errors import CheckpointError
from fedvtc.runtime.lineage import History
from fedvtc.storage.checkpoints import shard_name
from fedvtc.storage.checkpoints.trees import read_tree

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient


def restore(client: FederatedClient, history: History) -> tuple[int, list[str]]:
    """Loads the newest usable checkpoint into a new client.

    Args:
        client: the client, as built from its spec.
        history: the client's checkpoints.

    Returns:
        The round of the checkpoint, 0 without one, and a line for each damaged checkpoint that was skipped. The line
        names the node, because a folder that the nodes do not share has other files on each node.

    Raises:
        CheckpointError: every checkpoint is damaged, and the steps do not start at the first round.
    """
    damaged: list[str] = []
    for manifest in history.checkpoints:
        if not manifest.shards:
            return manifest.round, damaged
        assert history.store is not None
        try:
            state = read_tree(history.store.read(manifest, shard_name(client.id)))
        except CheckpointError as error:
            damaged.append(f"{str(error).rstrip('.')} (on {socket.gethostname()})")
            continue
        client.load_state_dict(state)
        client.begin_round(manifest.round)
        return manifest.round, damaged
    if not history.from_nothing:
        raise CheckpointError("\n".join(damaged))
    return 0, damaged
