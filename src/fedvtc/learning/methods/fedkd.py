"""FedKD: a private mentor and a shared mentee teach each other as far as they are sure; updates are sent compressed.

Source: C. Wu et al., "Communication-efficient federated learning via knowledge distillation", Nature Communications 13
(2022), arXiv 2108.13323.
Unlike in the published code, no gradient flows through the sum of both cross-entropies that divides the other terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedvtc.config.section import section
from fedvtc.learning.exchange.compression import compress, decompress
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.learning.methods._shared_proxy import ProxyConfig, SharedPair
from fedvtc.learning.methods.base import ServerState

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.models.proxy import Pair, PairOutputs, Step
    from fedvtc.learning.server import Server

_BASE = "base/"
_SMALLEST_SUM = 0.1
"""Least divisor s, so that imitation weighs at most 10.

Both cross-entropies of a client of one class go to 0. With features of mean square 1, as the backbones compute them,
the curvature of the squared distance in W is up to 2 / s, and SGD with lr 0.01 and momentum 0.9 diverges for s < 0.005.
"""


@section
class FedKDConfig(ProxyConfig):
    """The keys of FedKD."""

    name: str = "fedkd"
    first_energy: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share T_0 of the squared singular values of an update that is sent at the start."""
    last_energy: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Share T_1 that is sent in the last round."""


class FedKD(SharedPair[FedKDConfig]):
    """Uploads compressed updates of the mentee; broadcasts their mean, compressed too."""

    config_class = FedKDConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the pair; the memory holds the mentee as last received, on which an update builds."""
        super().prepare(client)
        self._remember(client, self._weights_of(client), round=0)

    def step(self) -> Step:
        """Returns the loss of `adaptive_terms`."""
        return _step

    def new_projection(self) -> nn.Linear:
        """Builds W_k, which maps the mentee's features to the mentor's."""
        from torch import nn

        with self.task.shared_randomness("projection"):
            return nn.Linear(self.task.feature_size, self.task.feature_size, bias=False)

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the mentee: sent whole, or the mentee of the broadcast before plus the mean update."""
        from fedvtc.learning.models.weights import load_weights

        base = self._base_of(client)
        if broadcast.payload and client.memory["round"] != broadcast.round:
            whole, update = broadcast.payload["proxy"], broadcast.payload["update"]
            base = dict(whole) if whole else _sum(base, decompress(update, like=base))
            self._remember(client, base, round=broadcast.round)
        load_weights(self.proxy_of(client), base)

    def upload_of(self, client: FederatedClient) -> Upload:
        """Returns the upload of the compressed update q_after - q_received."""
        update = _sum(self._weights_of(client), self._base_of(client), sign=-1)
        payload = {"update": compress(update, self._energy(client.round))}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Adds the mean update, weighted by images and compressed, to the mentee.

        The broadcast has the update alone if all clients took part, because every client then holds the mentee before.
        """
        from fedvtc.learning.models.weights import weights_of

        proxy: Arrays = state["proxy"] if "proxy" in state else weights_of(self.new_proxy())
        mean, num_uploads = WeightedMean(), 0
        for upload in uploads:
            mean.add(decompress(upload.payload["update"], like=proxy), upload.num_images)
            num_uploads += 1
        update = compress(mean.value(), self._energy(server.round))
        proxy = _sum(proxy, decompress(update, like=proxy))
        took_all = num_uploads == self.task.num_clients
        payload: dict[str, Arrays] = {"proxy": {} if took_all else proxy, "update": update if took_all else {}}
        return {"proxy": proxy}, Broadcast(server.round, payload)

    def largest_upload(self) -> Upload:
        """Builds an upload with an update that cannot be compressed."""
        upload = super().largest_upload()
        return replace(upload, payload={"update": upload.payload["proxy"]})

    def _energy(self, round: int) -> float:
        """T_t = T_0 + (t / R) (T_1 - T_0)."""
        first, last = self.config.first_energy, self.config.last_energy
        return first + min(round / self.task.num_rounds, 1.0) * (last - first)

    def _weights_of(self, client: FederatedClient) -> dict[str, NDArray[np.generic]]:
        from fedvtc.learning.models.weights import weights_of

        return weights_of(self.proxy_of(client))

    def _remember(self, client: FederatedClient, proxy: Arrays, *, round: int) -> None:
        client.memory["round"] = round
        for name, weight in proxy.items():
            client.memory[_BASE + name] = weight

    def _base_of(self, client: FederatedClient) -> dict[str, NDArray[np.generic]]:
        values = {name.removeprefix(_BASE): np.asarray(value) for name, value in client.memory.items()}
        return {name: values[name] for name in self._weights_of(client)}


def _sum(arrays: Arrays, others: Arrays, sign: int = 1) -> dict[str, NDArray[np.generic]]:
    return {
        name: (np.asarray(array, dtype=np.float64) + sign * np.asarray(others[name], dtype=np.float64)).astype(
            array.dtype
        )
        for name, array in arrays.items()
    }


def _step(pair: Pair, images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    outputs = pair(images)
    assert pair.projection is not None
    return adaptive_terms(outputs, pair.projection(outputs.proxy_features_BD), labels_B)


def adaptive_terms(outputs: PairOutputs, projected_BD: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """Returns L_f + L_q and its terms, undivided; s = CE(z, y) + CE(u, y), at least 0.1, is a constant.

    L_f = CE(z, y) + (KL(softmax u || softmax z) + MSE(g_k(x), W g_q(x))) / s
    L_q = CE(u, y) + (KL(softmax z || softmax u) + MSE(W g_q(x), g_k(x))) / s

    Both MSE have the same value, and differ in their gradients alone: `hidden` stands for both.

    Args:
        outputs: features and logits z of the mentor, logits u of the mentee.
        projected_BD: W g_q(x), the mentee's features mapped to the mentor's.
        labels_B: labels y.
    """
    from torch.nn import functional

    from fedvtc.learning.models.losses import distillation, squared_distance

    z_BC, u_BC, features_BD = outputs.logits_BC, outputs.proxy_logits_BC, outputs.features_BD
    classification, proxy_classification = (functional.cross_entropy(logits, labels_B) for logits in (z_BC, u_BC))
    sum = (classification + proxy_classification).detach().clamp(min=_SMALLEST_SUM)
    mutual, proxy_mutual = distillation(u_BC, z_BC), distillation(z_BC, u_BC)
    hidden, proxy_hidden = squared_distance(projected_BD, features_BD), squared_distance(features_BD, projected_BD)
    private = classification + mutual / sum + hidden / sum
    return {
        "loss": private + proxy_classification + proxy_mutual / sum + proxy_hidden / sum,
        "classification": classification,
        "mutual": mutual,
        "hidden": hidden,
        "proxy_classification": proxy_classification,
        "proxy_mutual": proxy_mutual,
    }


METHOD = FedKD
