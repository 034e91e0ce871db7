"""A head that all clients share: one start for all, and its way into a client.

Shapes: C classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedvtc.learning.exchange.messages import Arrays, Broadcast

if TYPE_CHECKING:
    from torch import nn

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.base import Task


def new_head(task: Task) -> nn.Linear:
    """Builds a head (D to C) with equal weights on the server and on every client."""
    from torch import nn

    with task.shared_randomness("head"):
        return nn.Linear(task.feature_size, task.num_classes)


def first_head(task: Task) -> Arrays:
    """Returns the weights of `new_head`, for the first broadcast."""
    from fedvtc.learning.models.weights import weights_of

    return weights_of(new_head(task))


def receive_head(client: FederatedClient, broadcast: Broadcast) -> None:
    """Replaces the client's head by the head of the broadcast; the optimizer of the classifier keeps its state."""
    from fedvtc.learning.models.weights import load_weights

    load_weights(client.classifier.head, broadcast.payload["head"])
