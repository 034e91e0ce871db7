"""FedProto: clients average class prototypes and pull their features towards the averages.

Source: Y. Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022
(arXiv 2105.00243).
Unlike in the published code, every backbone normalises its features (see `learning/models/backbones.py`).

Shapes: K classes held, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server

_UNIT_SPREAD = np.ones((), dtype=np.float32)


@section
class FedProtoConfig(MethodConfig):
    """The keys of FedProto."""

    name: str = "fedproto"
    prototype_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight lambda of the distance to the global prototype."""


class FedProto(Method[FedProtoConfig]):
    """Uploads class prototypes; broadcasts their means, weighted by images."""

    config_class = FedProtoConfig

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE + lambda * mean_j (g(x)_j - c_j^y)^2, and uploads the prototypes of the trained model."""
        if broadcast.payload:
            client.set_prototypes(_read(broadcast.payload["prototypes"]), self.config.prototype_weight)
        client.train()
        payload = _payload(client.statistics("scalar"))
        return Upload(client.id, client.round, client.num_images, payload, dict(client.scalars))

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages prototypes: c^y = sum_k n_k^y c_k^y / sum_k n_k^y over the holders of class y.

        A class that no participant holds keeps its last prototype.
        """
        merged, round = FeatureStatistics.empty(self.task.feature_size, "scalar"), 0
        for upload in uploads:
            round = upload.round
            arrays = {**upload.payload, "covariance": {"scatter": np.zeros(())}}
            merged += FeatureStatistics.from_arrays(arrays, "scalar")
        prototypes = ClassGaussians(merged.classes_K, merged.count_K, merged.mean_KD.astype(np.float32), _UNIT_SPREAD)
        if "prototypes" in state:
            prototypes = prototypes.keeping(_read(state["prototypes"]))
        payload = {"prototypes": prototypes.to_payload()["prototypes"]}
        return payload, Broadcast(round, payload)

    def largest_upload(self) -> Upload:
        """Builds an upload with prototypes of all classes."""
        num_classes, size = self.task.num_classes, self.task.feature_size
        statistics = FeatureStatistics.of(np.zeros((num_classes, size)), np.arange(num_classes), "scalar")
        return replace(super().largest_upload(), payload=_payload(statistics))


def _payload(statistics: FeatureStatistics) -> dict[str, Arrays]:
    return {"prototypes": statistics.to_arrays()["prototypes"]}


def _read(prototypes: Arrays) -> ClassGaussians:
    # FedProto has no spread; a spread of 1 gives FedProto's distance to a prototype.
    return ClassGaussians.from_arrays(prototypes, {"spread": _UNIT_SPREAD})


METHOD = FedProto
