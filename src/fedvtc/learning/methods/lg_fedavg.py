"""LG-FedAvg: clients average the heads of their models and keep their backbones.

Source: P. P. Liang et al., "Think Locally, Act Globally: Federated Learning with Local and Global Representations",
2020 (arXiv 2001.01523).
Unlike in the published code, training starts from new weights, the last layer alone is shared, and clients weigh by
their images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods._shared_head import first_head, receive_head
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class LGFedAvgConfig(MethodConfig):
    """The keys of every method and no others."""

    name: str = "lg_fedavg"


class LGFedAvg(Method[LGFedAvgConfig]):
    """Uploads heads h_k; broadcasts their mean, weighted by images."""

    config_class = LGFedAvgConfig

    def start(self) -> tuple[ServerState, Broadcast]:
        """Broadcasts one first head for all clients."""
        return {}, Broadcast(0, {"head": first_head(self.task)})

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Replaces the client's head: h_k <- h."""
        receive_head(client, broadcast)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains the whole model by cross-entropy, and uploads the trained head."""
        from fedvtc.learning.models.weights import weights_of

        client.train()
        payload = {"head": weights_of(client.classifier.head)}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages heads: h = sum_k n_k h_k / sum_k n_k over the participants."""
        mean = WeightedMean()
        for upload in uploads:
            mean.add(upload.payload["head"], upload.num_images)
        return state, Broadcast(server.round, {"head": mean.value()})

    def largest_upload(self) -> Upload:
        """Builds an upload with a new head."""
        return replace(super().largest_upload(), payload={"head": first_head(self.task)})


METHOD = LGFedAvg
