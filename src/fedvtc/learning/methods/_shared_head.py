"""A head that all clients share: one start for all, its training on the server, and its way into a client.

Shapes: B rows of a batch, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fedvtc.learning.exchange.messages import Arrays, Broadcast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.base import Task
    from fedvtc.learning.server import Server


def new_head(task: Task) -> nn.Linear:
    """Builds a head (D to C) with equal weights on the server and on every client."""
    from torch import nn

    with task.shared_randomness("head"):
        return nn.Linear(task.feature_size, task.num_classes)


def first_head(task: Task) -> Arrays:
    """Returns the weights of `new_head`, for the first broadcast."""
    from fedvtc.learning.models.weights import weights_of

    return weights_of(new_head(task))


def trained_head(
    task: Task,
    start: Arrays,
    batches: Iterable[Sequence[Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    lr: float,
    server: Server,
) -> Arrays:
    """Steps the head by SGD on the server, and returns its weights.

    Args:
        task: the task of the federation.
        start: weights of the head before the first step.
        batches: features (B, D) and their targets, drawn in the phase `head`.
        loss: computes the loss from logits (B, C) and targets.
        lr: learning rate.
        server: the server's tools in this round.
    """
    import torch

    from fedvtc.learning.models.weights import load_weights, weights_of

    head = new_head(task)
    load_weights(head, start)
    with server.phase("head"):
        stepper = torch.optim.SGD(head.parameters(), lr=lr)
        server.fit(head, batches, lambda features_BD, targets: loss(head(features_BD), targets), stepper)
    return weights_of(head)


def receive_head(client: FederatedClient, broadcast: Broadcast) -> None:
    """Replaces the client's head by the head of the broadcast; the optimizer of the classifier keeps its state."""
    from fedvtc.learning.models.weights import load_weights

    load_weights(client.classifier.head, broadcast.payload["head"])
