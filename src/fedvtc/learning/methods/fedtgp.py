"""FedTGP: the server trains prototypes that lie close to the clients' class means and far from each other.

Source: J. Zhang et al., "FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive Learning for
Data and Model Heterogeneity in Federated Learning", AAAI 2024 (arXiv 2401.03230).

Shapes: N class means of all uploads, B rows of a batch, K classes that were ever uploaded, J of them in earlier rounds,
C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods._class_means import batches, class_means, largest_class_means, stacked
from fedvtc.learning.methods._prototypes import as_gaussians, nearest_prototypes
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.evaluation import Predictor
    from fedvtc.learning.models.feature_nets import PrototypeNet
    from fedvtc.learning.server import Server


@section
class FedTGPConfig(MethodConfig):
    """The keys of FedTGP."""

    name: str = "fedtgp"
    prototype_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight lambda of the squared distance to the global prototype."""
    server_epochs: Annotated[int, Field(ge=1)] = 100
    """Passes of the server over the class means of a round."""
    server_lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of the server's SGD."""
    server_batch_size: Annotated[int, Field(ge=1)] = 10
    """Class means in a step of the server."""
    largest_margin: Annotated[float, Field(ge=0)] = 100.0
    """Upper bound tau of the margin."""
    as_released: bool = False
    """Computes like the authors' code: clients upload the class means of the model before the round's training, and
    the margin is the largest distance of a class to its nearest class instead of the largest distance."""


class FedTGP(Method[FedTGPConfig]):
    """Uploads class means; broadcasts trained prototypes of all classes that were ever uploaded."""

    config_class = FedTGPConfig

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE + lambda * mean_j (g(x)_j - P_j^y)^2, and uploads the class means of the trained model."""
        if broadcast.payload:
            client.set_prototypes(self._read(broadcast), self.config.prototype_weight)
        stale = client.statistics("scalar") if self.config.as_released else None
        client.train()
        means = class_means(stale or client.statistics("scalar"))
        return client.upload({"prototypes": means})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Trains the prototypes P on the class means of the round, by cross-entropy of -(distance + margin).

        A class whose mean no participant uploads keeps the prototype of the last broadcast. The training moves the
        vector of this class all the same; the next upload of the class trains this vector further.
        """
        import torch

        from fedvtc.learning.models.feature_losses import margin_contrast
        from fedvtc.learning.models.weights import load_weights, weights_of

        config, net = self.config, self._new_net()
        if state:
            load_weights(net, state["prototype_net"])
        means_ND, labels_N = stacked(uploads)
        margin = min(largest_distance(means_ND, labels_N, nearest=config.as_released), config.largest_margin)
        optimizer = torch.optim.SGD(net.parameters(), lr=config.server_lr)

        def loss(means_BD: Tensor, labels_B: Tensor) -> Tensor:
            return margin_contrast(means_BD, labels_B, net(), margin)

        rows = batches(means_ND, labels_N, batch_size=config.server_batch_size, epochs=config.server_epochs)
        with server.phase("prototypes"):
            server.fit(net, rows, loss, optimizer)
        classes_K = np.union1d(state["classes"], labels_N) if state else np.unique(labels_N)
        with torch.no_grad():
            mean_KD = net()[classes_K].numpy()
        if "mean" in state:
            # The contrast only pushes the vector of an absent class away, out of the region of the features.
            is_absent_J = ~np.isin(state["classes"], labels_N)
            mean_KD[np.isin(classes_K, state["classes"][is_absent_J])] = state["mean"][is_absent_J]
        payload = {"prototypes": {"classes": classes_K, "mean": mean_KD}}
        kept = {"prototype_net": weights_of(net), "classes": classes_K, "mean": mean_KD}
        return kept, Broadcast(server.round, payload)

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Names the class of the nearest prototype, of all classes that were ever uploaded; the head beside it."""
        head = super().predictors(client, broadcast)
        if not broadcast.payload:
            return head
        return {"prototype": nearest_prototypes(client, self._read(broadcast)), **head}

    def largest_upload(self) -> Upload:
        """Builds an upload with the means of all classes."""
        means = largest_class_means(self.task.num_classes, self.task.feature_size)
        return replace(super().largest_upload(), payload={"prototypes": means})

    @staticmethod
    def _read(broadcast: Broadcast) -> ClassGaussians:
        prototypes = broadcast.payload["prototypes"]
        # The messages of FedTGP have no counts, and nothing here reads them.
        return as_gaussians({**prototypes, "count": np.ones(len(prototypes["classes"]), dtype=np.int64)})

    def _new_net(self) -> PrototypeNet:
        from fedvtc.learning.models.feature_nets import PrototypeNet

        with self.task.shared_randomness("prototype_net"):
            return PrototypeNet(self.task.num_classes, self.task.feature_size)


def largest_distance(means_ND: NDArray[np.float32], labels_N: NDArray[np.int64], *, nearest: bool) -> float:
    """Returns the largest distance between two classes' plain means over clients; 0 for a single class.

    Args:
        means_ND: class means of all clients.
        labels_N: class of each mean.
        nearest: returns the largest distance of a class to its nearest class instead.
    """
    center_KD = np.stack([means_ND[labels_N == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels_N)])
    distance_KK = np.linalg.norm(center_KD[:, None] - center_KD, axis=2)
    if len(center_KD) == 1:
        return 0.0
    if nearest:
        np.fill_diagonal(distance_KK, np.inf)
        return float(distance_KK.min(axis=1).max())
    return float(distance_KK.max())


METHOD = FedTGP
