"""FML: a private model and a shared proxy teach each other by their predictions; the server averages the proxies.

Source: T. Shen et al., "Federated Mutual Learning", 2020 (arXiv 2006.16765).
Unlike in the code of comparisons, the divergence is summed over classes and no gradient flows into the teacher.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fedvtc.config.section import section
from fedvtc.learning.methods._shared_proxy import ProxyConfig, SharedPair

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.models.proxy import Pair, Step


@section
class FMLConfig(ProxyConfig):
    """The keys of FML."""

    name: str = "fml"
    private_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight alpha of the labels in the private model's loss; the proxy's predictions have 1 - alpha."""
    proxy_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight beta of the labels in the proxy's loss; the private model's predictions have 1 - beta."""


class FML(SharedPair[FMLConfig]):
    """Deep mutual learning of each client's model with the shared proxy."""

    config_class = FMLConfig

    def step(self) -> Step:
        """Returns the loss of `mutual_terms`."""
        return partial(_step, alpha=self.config.private_weight, beta=self.config.proxy_weight)


def _step(pair: Pair, images: Tensor, labels_B: Tensor, *, alpha: float, beta: float) -> dict[str, Tensor]:
    outputs = pair(images)
    return mutual_terms(outputs.logits_BC, outputs.proxy_logits_BC, labels_B, alpha=alpha, beta=beta)


def mutual_terms(z_BC: Tensor, u_BC: Tensor, labels_B: Tensor, *, alpha: float, beta: float) -> dict[str, Tensor]:
    """Returns L_f + L_q and its terms, from the logits z of the private model and u of the proxy.

    L_f = alpha CE(z, y) + (1 - alpha) KL(softmax u || softmax z)
    L_q = beta CE(u, y) + (1 - beta) KL(softmax z || softmax u)
    """
    from torch.nn import functional

    from fedvtc.learning.models.losses import distillation

    classification, mutual = functional.cross_entropy(z_BC, labels_B), distillation(u_BC, z_BC)
    proxy_classification, proxy_mutual = functional.cross_entropy(u_BC, labels_B), distillation(z_BC, u_BC)
    private = alpha * classification + (1 - alpha) * mutual
    proxy = beta * proxy_classification + (1 - beta) * proxy_mutual
    return {
        "loss": private + proxy,
        "classification": classification,
        "mutual": mutual,
        "proxy_classification": proxy_classification,
        "proxy_mutual": proxy_mutual,
    }


METHOD = FML
