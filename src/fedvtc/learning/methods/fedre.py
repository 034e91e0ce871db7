"""FedRE: each client uploads one random convex mix of its class means; the server trains one head on the mixes.

Source: Y. Yao et al., "FedRE: A Representation Entanglement Framework for Model-Heterogeneous Federated Learning",
CVPR 2026 (arXiv 2511.22265).

Shapes: K classes held, N mixes of all uploads, B of a batch, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.methods._class_means import batches
from fedvtc.learning.methods._shared_head import first_head, receive_head, trained_head
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class FedREConfig(MethodConfig):
    """The keys of FedRE."""

    name: str = "fedre"
    server_epochs: Annotated[int, Field(ge=1)] = 1
    """Passes of the server over the mixes of a round."""
    server_lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of the server's SGD. The loss is the mean over a batch; the authors' code takes the sum."""
    server_batch_size: Annotated[int, Field(ge=1)] = 32
    """Mixes in a step of the server."""


class FedRE(Method[FedREConfig]):
    """Uploads one mix of class means with its weights; broadcasts the head that the server trains on the mixes."""

    config_class = FedREConfig

    def start(self) -> tuple[ServerState, Broadcast]:
        """Draws the head with which the server and all clients start."""
        payload = {"head": first_head(self.task)}
        return payload, Broadcast(0, payload)

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Replaces the client's head by the server's head."""
        receive_head(client, broadcast)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains backbone and head on CE, and uploads sum_y w_y c^y with w = u / sum u, u_y ~ U(0, 1)."""
        import torch

        client.train()
        statistics = client.statistics("scalar")
        with client.randomness("mix"):
            # 1 - u is never 0, so the sum is positive.
            draws_K = 1 - torch.rand(len(statistics.classes_K), dtype=torch.float64).numpy()
        mix = mixed(statistics.mean_KD, statistics.classes_K, draws_K)
        return client.upload({"mix": mix})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Steps the head on sum_y w_y CE(h(r), y) over the mixes r of the round."""
        from fedvtc.learning.models.losses import soft_cross_entropy

        config, mixes = self.config, [upload.payload["mix"] for upload in uploads]
        weights_NC = np.zeros((len(mixes), self.task.num_classes), dtype=np.float32)
        for weights_C, mix in zip(weights_NC, mixes, strict=True):
            weights_C[mix["classes"]] = mix["weights"]
        means_ND = np.stack([mix["mean"] for mix in mixes])

        def loss(logits_BC: Tensor, weights_BC: Tensor) -> Tensor:
            return soft_cross_entropy(weights_BC, logits_BC)

        rows = batches(means_ND, weights_NC, batch_size=config.server_batch_size, epochs=config.server_epochs)
        payload = {"head": trained_head(self.task, state["head"], rows, loss, lr=config.server_lr, server=server)}
        return payload, Broadcast(server.round, payload)

    def largest_upload(self) -> Upload:
        """Builds an upload with a mix of all classes."""
        num_classes, size = self.task.num_classes, self.task.feature_size
        mix = mixed(np.zeros((num_classes, size)), np.arange(num_classes), np.ones(num_classes))
        return replace(super().largest_upload(), payload={"mix": mix})


def mixed(mean_KD: NDArray[np.float64], classes_K: NDArray[np.int64], draws_K: NDArray[np.float64]) -> Arrays:
    """Mixes class means by draws divided by their sum; returns the mix with its classes and weights."""
    weights_K = draws_K / draws_K.sum()
    mean_D = (weights_K @ mean_KD).astype(np.float32)
    return {"classes": classes_K, "weights": weights_K.astype(np.float32), "mean": mean_D}


METHOD = FedRE
