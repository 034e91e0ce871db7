"""Shared head: clients of different architectures average the last layer of their models.

Every backbone ends in the same number of features, so the heads have one shape. Change this file, or write another one:
the config names the class as `method.name: shared_head:SharedHead`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods import Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class SharedHeadConfig(MethodConfig):
    """The keys under `method`."""

    mix: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the mean head in the head that a client starts a round with; 0 trains alone."""


class SharedHead(Method[SharedHeadConfig]):
    """Uploads heads; broadcasts their mean, weighted by images."""

    config_class = SharedHeadConfig

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Mixes the mean head into the client's head, trains the whole model, and uploads the trained head."""
        # Imported here, because the import of PyTorch takes seconds and the command line reads this file first.
        from fedvtc.learning.models.weights import load_weights, weights_of

        head = client.classifier.head
        if broadcast.payload:
            load_weights(head, mixed(weights_of(head), broadcast.payload["head"], self.config.mix))
        client.train()
        return client.upload({"head": weights_of(head)})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages heads: sum_k n_k h_k / sum_k n_k over the participants."""
        mean = WeightedMean()
        for upload in uploads:
            mean.add(upload.payload["head"], upload.num_images)
        return state, Broadcast(server.round, {"head": mean.value()})

    def largest_upload(self) -> Upload:
        """Builds an upload of zeros, from which `fedvtc plan` counts the bytes of a round."""
        num_classes, num_features = self.task.num_classes, self.task.feature_size
        head = {
            "weight": np.zeros((num_classes, num_features), np.float32),
            "bias": np.zeros(num_classes, np.float32),
        }
        return replace(super().largest_upload(), payload={"head": head})


def mixed(own: Mapping[str, Any], mean: Mapping[str, Any], weight: float) -> dict[str, Any]:
    """Returns (1 - weight) * own + weight * mean of arrays by name."""
    return {name: (1 - weight) * own[name] + weight * mean[name] for name in own}
