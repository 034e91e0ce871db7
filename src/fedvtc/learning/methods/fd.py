"""FD: clients share their mean prediction for each class, and learn from the mean of the other clients.

Source: E. Jeong et al., "Communication-Efficient On-Device Machine Learning: Federated Distillation and Augmentation
under Non-IID Private Data", 2018 (arXiv 1811.11479). Also known as FedDistill.

Shapes: K classes held, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods._class_means import class_means, largest_class_means
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class FDConfig(MethodConfig):
    """The keys of FD."""

    name: str = "fd"
    distillation_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight gamma of the cross-entropy with the mean prediction of the other clients."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """Means are of `probabilities`, or of `logits`, whose softmax is then the target."""


class FD(Method[FDConfig]):
    """Uploads mean predictions by class; broadcasts their sums over clients."""

    config_class = FDConfig

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE(z, y) + gamma H(a^y, z), and uploads the mean predictions F_k of the trained model.

        There is no teacher a^y in the first round.
        """
        from torch import tensor
        from torch.nn import functional

        from fedvtc.learning.models.losses import soft_cross_entropy

        teacher = self._teacher(client, broadcast)
        targets_CC, held_C = (tensor(array, device=client.device) for array in teacher)
        weight = self.config.distillation_weight

        def loss(images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            logits_BC = client.classifier(images)
            classification = functional.cross_entropy(logits_BC, labels_B)
            if not broadcast.payload:
                return {"loss": classification, "classification": classification}
            soft_labels = soft_cross_entropy(targets_CC[labels_B], logits_BC, held_C[labels_B])
            whole = classification + weight * soft_labels
            return {"loss": whole, "classification": classification, "soft_labels": soft_labels}

        with client.phase("train"):
            for batches in client.passes():
                client.fit("classifier", batches, loss=loss)
        own = self._own_means(client)
        client.memory.update(own, round=client.round)
        return client.upload({"predictions": own})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Sums predictions: S^y = sum_k F_k^y over the m^y holders of class y.

        A class that no upload has keeps both, and the round of its sum. `rounds` has the rounds of all sums, and is
        absent while all sums are of the last round.
        """
        num_classes = self.task.num_classes
        sum_CC, holders_C = np.zeros((num_classes, num_classes)), np.zeros(num_classes, dtype=np.int32)
        for upload in uploads:
            own = upload.payload["predictions"]
            sum_CC[own["classes"]] += own["mean"]
            holders_C[own["classes"]] += 1
        rounds_C = np.full(num_classes, server.round, dtype=np.int32)
        if "predictions" in state:
            last = state["predictions"]
            kept_C = (holders_C == 0) & (last["holders"] > 0)
            sum_CC[kept_C], holders_C[kept_C] = last["sum"][kept_C], last["holders"][kept_C]
            rounds_C[kept_C] = _rounds_of(last, server.round - 1)[kept_C]
        predictions: dict[str, NDArray[np.generic]] = {"sum": sum_CC.astype(np.float32), "holders": holders_C}
        if (rounds_C != server.round).any():
            predictions["rounds"] = rounds_C
        payload = {"predictions": predictions}
        return payload, Broadcast(server.round, payload)

    def largest_upload(self) -> Upload:
        """Builds an upload with predictions for all classes."""
        num_classes = self.task.num_classes
        payload = {"predictions": largest_class_means(num_classes, num_classes)}
        return replace(super().largest_upload(), payload=payload)

    def _teacher(self, client: FederatedClient, broadcast: Broadcast) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Returns the mean prediction of the other clients for each class, and True for classes that have one.

        a^y = (S^y - F_k^y) / (m^y - 1) if S^y contains the client's last F_k^y, else S^y / m^y. S^y contains F_k^y if
        both are of one round.
        """
        num_classes = self.task.num_classes
        sum_CC, holders_C = np.zeros((num_classes, num_classes)), np.zeros(num_classes, dtype=np.int64)
        if broadcast.payload:
            arrays = broadcast.payload["predictions"]
            sum_CC += np.asarray(arrays["sum"], dtype=np.float64)
            holders_C += np.asarray(arrays["holders"], dtype=np.int64)
            if "round" in client.memory:
                classes_K = np.asarray(client.memory["classes"])
                summed_K = _rounds_of(arrays, broadcast.round)[classes_K] == client.memory["round"]
                sum_CC[classes_K[summed_K]] -= np.asarray(client.memory["mean"])[summed_K]
                holders_C[classes_K[summed_K]] -= 1
        mean_CC = sum_CC / np.maximum(holders_C, 1)[:, None]
        if self.config.average == "logits":
            mean_CC = np.exp(mean_CC - mean_CC.max(axis=1, keepdims=True))
            mean_CC /= mean_CC.sum(axis=1, keepdims=True)
        return mean_CC.astype(np.float32), holders_C > 0

    def _own_means(self, client: FederatedClient) -> Arrays:
        """Returns the mean prediction F_k^y of the trained model for each class that the client holds."""
        from fedvtc.learning.client.outputs import own_outputs

        with client.phase("statistics"):
            outputs_NC = own_outputs(client, client.classifier)
            if self.config.average == "probabilities":
                outputs_NC = outputs_NC.softmax(dim=1)
            labels_N = client.images.labels_N.cpu().numpy()
            return class_means(FeatureStatistics.of(outputs_NC.cpu().numpy(), labels_N, "scalar"))


def _rounds_of(predictions: Arrays, newest: int) -> NDArray[np.generic]:
    """Returns the round of each class's sum; `newest` is the round in which the server made the message."""
    return predictions.get("rounds", np.full(len(predictions["holders"]), newest))


METHOD = FD
