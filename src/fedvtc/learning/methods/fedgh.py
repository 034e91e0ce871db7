"""FedGH: the server trains one head on the class means of all clients.

Source: L. Yi et al., "FedGH: Heterogeneous Federated Learning with Generalized Global Header", ACM Multimedia 2023
(arXiv 2303.13137).

Shapes: N class means of all uploads, B of a batch, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods._class_means import batches, class_means, largest_class_means, stacked
from fedvtc.learning.methods._shared_head import first_head, receive_head, trained_head
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class FedGHConfig(MethodConfig):
    """The keys of FedGH."""

    name: str = "fedgh"
    server_epochs: Annotated[int, Field(ge=1)] = 1
    """Passes of the server over the class means of a round."""
    server_lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of the server's SGD."""
    server_batch_size: Annotated[int, Field(ge=1)] = 10
    """Class means in a step of the server; the printed algorithm takes 1."""


class FedGH(Method[FedGHConfig]):
    """Uploads class means; broadcasts the head that the server trains on them."""

    config_class = FedGHConfig

    def start(self) -> tuple[ServerState, Broadcast]:
        """Draws the head with which the server and all clients start."""
        payload = {"head": first_head(self.task)}
        return payload, Broadcast(0, payload)

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Replaces the client's head by the server's head."""
        receive_head(client, broadcast)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains backbone and head on CE, and uploads the class means of the trained backbone."""
        client.train()
        means = class_means(client.statistics("scalar"))
        return client.upload({"prototypes": means})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Steps the head on CE(h(c_k^y), y) over all class means of the round."""
        from torch.nn import functional

        config = self.config
        rows = batches(*stacked(uploads), batch_size=config.server_batch_size, epochs=config.server_epochs)
        loss = functional.cross_entropy
        payload = {"head": trained_head(self.task, state["head"], rows, loss, lr=config.server_lr, server=server)}
        return payload, Broadcast(server.round, payload)

    def largest_upload(self) -> Upload:
        """Builds an upload with the means of all classes."""
        means = largest_class_means(self.task.num_classes, self.task.feature_size)
        return replace(super().largest_upload(), payload={"prototypes": means})


METHOD = FedGH
