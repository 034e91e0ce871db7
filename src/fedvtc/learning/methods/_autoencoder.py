"""The training of a client's conditional autoencoder, attached as `generator`, on the client's own images.

Shapes: B images of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient


def train_autoencoder(client: FederatedClient, *, epochs: int, batch_size: int) -> None:
    """Trains the autoencoder in the phase `generator`, on images without augmentation."""
    labels_N = client.images.labels_N
    with client.phase("generator"):
        for _ in range(epochs):
            batches = (
                (images, labels_N[index_B])
                for images, index_B in client.images.in_batches(client.index_batches(batch_size))
            )
            client.fit("generator", batches)
