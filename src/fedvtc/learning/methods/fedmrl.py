"""FedMRL: features of a shared small model and of the private model are fused, and feed two nested heads.

Source: L. Yi et al., "Federated Model Heterogeneous Matryoshka Representation Learning", NeurIPS 2024
(arXiv 2406.00488).

Shapes: D features p of the private model, S features p_s of the small model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fedvtc.config.section import section
from fedvtc.learning.methods._shared_proxy import ProxyConfig, SharedPair, new_proxy, pair_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedvtc.config.schema import Config
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.exchange.messages import Broadcast
    from fedvtc.learning.methods.base import Predictor
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.proxy import Pair, Step


@section
class FedMRLConfig(ProxyConfig):
    """The keys of FedMRL."""

    name: str = "fedmrl"
    proxy_features: Annotated[int, Field(ge=2)] | None = None
    """Features p_s of the proxy, at most `population.feature_size`; null takes half of `population.feature_size`."""

    def problems(self, config: Config) -> list[str]:
        """Returns one text for each conflict between keys."""
        size, features = config.population.feature_size, self.proxy_features
        if features is None or features <= size:
            return super().problems(config)
        text = f"proxy_features: {features} is more than population.feature_size={size}. Set at most {size}."
        return [*super().problems(config), text]


class FedMRL(SharedPair[FedMRLConfig]):
    """Trains both heads on the fused features; the server averages the small models."""

    config_class = FedMRLConfig

    def step(self) -> Step:
        """Returns CE(h_k(r), y) + CE(h_q(r_{1..p_s}), y)."""
        return nested_terms

    def new_proxy(self) -> ClassifierModule:
        """Builds the small model with the weights that all clients begin with."""
        return new_proxy(self.task, self.config.proxy, feature_size=self._proxy_features)

    def new_projection(self) -> nn.Linear:
        """Builds P_k, which maps the features of both models to r in R^p."""
        from torch import nn

        with self.task.shared_randomness("projection"):
            return nn.Linear(self._proxy_features + self.task.feature_size, self.task.feature_size)

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Returns h_k(r), which is ranked, and h_q(r_{1..p_s})."""
        pair = pair_of(client)
        return {
            "private": lambda images: nested_logits(pair, images)[0],
            "proxy": lambda images: nested_logits(pair, images)[1],
        }

    @property
    def _proxy_features(self) -> int:
        return self.config.proxy_features or max(2, self.task.feature_size // 2)


def nested_logits(pair: Pair, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns h_k(r) and h_q(r_{1..p_s}) of the fused features r = P_k[g_q(x), g_k(x)]."""
    import torch

    features_BD, proxy_features_BS = pair.features(images)
    assert pair.projection is not None
    fused_BD = pair.projection(torch.cat([proxy_features_BS, features_BD], dim=1))
    return pair.classifier.head(fused_BD), pair.proxy.head(fused_BD[:, : pair.proxy.head.in_features])


def nested_terms(pair: Pair, images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """Returns CE(h_k(r), y) + CE(h_q(r_{1..p_s}), y) and both terms."""
    from torch.nn import functional

    logits_BC, proxy_logits_BC = nested_logits(pair, images)
    classification = functional.cross_entropy(logits_BC, labels_B)
    proxy_classification = functional.cross_entropy(proxy_logits_BC, labels_B)
    return {
        "loss": classification + proxy_classification,
        "classification": classification,
        "proxy_classification": proxy_classification,
    }


METHOD = FedMRL
