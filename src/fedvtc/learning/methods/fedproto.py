"""FedProto: clients average class prototypes and pull their features towards the averages.

Source: Y. Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022
(arXiv 2105.00243).
Unlike in the published code, every backbone normalises its features (see `learning/models/backbones.py`).

Shapes: K classes held, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import AddedLater, section
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods._prototypes import UNIT_SPREAD, as_gaussians, nearest_prototypes
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.evaluation import Predictor
    from fedvtc.learning.server import Server


@section
class FedProtoConfig(MethodConfig):
    """The keys of FedProto."""

    name: str = "fedproto"
    prototype_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight lambda of the distance to the global prototype."""
    aggregation: Annotated[Literal["images", "clients"], AddedLater()] = "images"
    """Mean of the clients' prototypes of a class. `images`: weighted by the images of the class; `clients`: each client
    counts once, as in the authors' code."""
    prediction: Annotated[Literal["head", "prototype", "prototype_held"], AddedLater()] = "head"
    """The predictor that is ranked. `head`: the client's own model. `prototype`: the nearest global prototype, as in
    the paper. `prototype_held`: the nearest one of the client's own classes, as in the authors' code, so that missing
    classes are never named. With the last two, the accuracy of the head is in the record too."""
    precision: Annotated[Literal["float64", "float32"], AddedLater()] = "float64"
    """Type of uploaded prototypes; `float32` halves the bytes of uploads."""


class FedProto(Method[FedProtoConfig]):
    """Uploads class prototypes; broadcasts their means, weighted by images."""

    config_class = FedProtoConfig

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE + lambda * mean_j (g(x)_j - c_j^y)^2, and uploads the prototypes of the trained model."""
        if broadcast.payload:
            client.set_prototypes(as_gaussians(broadcast.payload["prototypes"]), self.config.prototype_weight)
        client.train()
        payload = self._payload(client.statistics("scalar"))
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages prototypes: c^y = sum_k n_k^y c_k^y / sum_k n_k^y over the holders of class y.

        With `aggregation: clients` each n_k^y is 1. A class that no participant holds keeps its last prototype.
        """
        merged = FeatureStatistics.empty(self.task.feature_size, "scalar")
        for upload in uploads:
            prototypes = upload.payload["prototypes"]
            if self.config.aggregation == "clients":
                prototypes = {**prototypes, "count": np.ones_like(prototypes["count"])}
            arrays = {"prototypes": prototypes, "covariance": {"scatter": np.zeros(())}}
            merged += FeatureStatistics.from_arrays(arrays, "scalar")
        means = ClassGaussians(merged.classes_K, merged.count_K, merged.mean_KD.astype(np.float32), UNIT_SPREAD)
        if "prototypes" in state:
            means = means.keeping(as_gaussians(state["prototypes"]))
        payload = {"prototypes": means.to_payload()["prototypes"]}
        return payload, Broadcast(server.round, payload)

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Names the class of the nearest prototype: argmin_y mean_j (g(x)_j - c_j^y)^2; the head beside it."""
        head = super().predictors(client, broadcast)
        if self.config.prediction == "head" or not broadcast.payload:
            return head
        is_held = self.config.prediction == "prototype_held"
        allowed_C = client.images.counts_C(self.task.num_classes) > 0 if is_held else None
        nearest = nearest_prototypes(client, as_gaussians(broadcast.payload["prototypes"]), allowed_C)
        return {self.config.prediction: nearest, **head}

    def largest_upload(self) -> Upload:
        """Builds an upload with prototypes of all classes."""
        num_classes, size = self.task.num_classes, self.task.feature_size
        statistics = FeatureStatistics.of(np.zeros((num_classes, size)), np.arange(num_classes), "scalar")
        return replace(super().largest_upload(), payload=self._payload(statistics))

    def _payload(self, statistics: FeatureStatistics) -> dict[str, Arrays]:
        prototypes = statistics.to_arrays()["prototypes"]
        return {"prototypes": {**prototypes, "mean": prototypes["mean"].astype(self.config.precision)}}


METHOD = FedProto
