"""FedType: a private model teaches a shared proxy by predictions, the proxy the private model by conformal label sets.

Source: J. Wang et al., "Bridging Model Heterogeneity in Federated Learning via Uncertainty-based Asymmetrical
Reciprocity Learning", ICML 2024 (arXiv 2407.03247).
The published code ranks the proxy's logits, so that no gradient reaches the private model; here the private model's
logits are ranked.

Shapes: N images of the client, B images of a batch, C classes.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fedvtc.config.section import section
from fedvtc.learning.methods._shared_proxy import ProxyConfig, SharedProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.loop import Loss
    from fedvtc.learning.exchange.messages import Broadcast, Upload
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.conformal import LabelSets


@section
class FedTypeConfig(ProxyConfig):
    """The keys of FedType."""

    name: str = "fedtype"
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Rate alpha of the images whose label the conformal set may lack."""
    free_labels: Annotated[int, Field(ge=0)] = 5
    """Labels k_reg of a set without penalty; 1 or 2 suit data of few classes."""
    proxy_penalty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least penalty a_0 of each further label in the proxy's sets; the penalty grows when the private model's training
    accuracy falls."""
    private_penalty: Annotated[float, Field(ge=0)] = 1.0
    """Penalty of each further label in the private model's sets."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature T of the private model's predictions, which the proxy learns."""
    aggregation: Literal["clients", "images"] = "clients"
    """Mean of the proxies: the same weight for all `clients`, or weighted by `images`."""


class FedType(SharedProxy[FedTypeConfig]):
    """Trains the private model and the proxy by turns; the server averages the proxies."""

    config_class = FedTypeConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the proxy, with equal initial weights on all clients."""
        client.attach("proxy", self.new_proxy())

    def proxy_of(self, client: FederatedClient) -> ClassifierModule:
        """Returns the client's proxy."""
        from fedvtc.learning.models.classifier import ClassifierModule

        proxy = client.modules["proxy"]
        assert isinstance(proxy, ClassifierModule)
        return proxy

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Calibrates both models, then trains one after the other, in each epoch; uploads the trained proxy."""
        private, proxy = client.classifier, self.proxy_of(client)
        penalty = client.memory.setdefault("penalty", self.config.proxy_penalty)
        client.memory.setdefault("accuracy", 0.0)
        for epoch, (batches, proxy_batches) in enumerate(zip(client.passes(), client.passes(), strict=True)):
            with _part(client, "calibrate", epoch):
                proxy_sets = self._calibrated(client, proxy, float(penalty))
                private_sets = self._calibrated(client, private, self.config.private_penalty)
            with _part(client, "train", epoch):
                loss = private_loss(private, proxy.eval(), private_sets, proxy_sets)
                client.fit("classifier", batches, loss=loss)
            with _part(client, "proxy", epoch):
                loss = proxy_loss(proxy, private.eval(), self.config.temperature)
                client.fit("proxy", proxy_batches, loss=loss, record_terms=False)
                penalty = self._next_penalty(client)
            client.memory["penalty"] = penalty
        return self.upload_of(client)

    def weight_of(self, upload: Upload) -> float:
        """Returns the weight of a proxy in the mean: 1, or the client's images."""
        return 1.0 if self.config.aggregation == "clients" else super().weight_of(upload)

    def _calibrated(self, client: FederatedClient, model: ClassifierModule, penalty: float) -> LabelSets:
        """Calibrates a model on the client's own training images."""
        import torch

        from fedvtc.learning.client.outputs import own_outputs
        from fedvtc.learning.models.conformal import LabelSets

        return LabelSets.calibrated(
            own_outputs(client, model).float().cpu().numpy(),
            client.images.labels_N.cpu().numpy(),
            torch.rand(client.num_images).numpy(),
            error_rate=self.config.error_rate,
            penalty=penalty,
            free_labels=self.config.free_labels,
            batch_size=self.task.batch_size,
        )

    def _next_penalty(self, client: FederatedClient) -> float:
        """Returns a_0 + (1 - a_0) |D| if the private model's training accuracy fell by D in this epoch, else a_0."""
        from fedvtc.learning.client.outputs import own_outputs

        predicted_N = own_outputs(client, client.classifier).argmax(dim=1)
        accuracy = float((predicted_N == client.images.labels_N).float().mean())
        fall = max(0.0, float(client.memory["accuracy"]) - accuracy)
        client.memory["accuracy"] = accuracy
        return self.config.proxy_penalty + (1.0 - self.config.proxy_penalty) * fall


def private_loss(
    private: ClassifierModule, proxy: ClassifierModule, private_sets: LabelSets, proxy_sets: LabelSets
) -> Loss:
    """Returns the loss L_f = CE(z, y) + kappa R(z, S_q(x)) of the private model; no gradient flows into the proxy.

    R ranks the private model's logits z by the proxy's set S_q of labels; kappa is the agreement of the sets of both.
    """
    import torch
    from torch.nn import functional

    from fedvtc.learning.models.conformal import agreement
    from fedvtc.learning.models.losses import ranking

    def loss(images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        z_BC = private(images)
        with torch.no_grad():
            proxy_BC, private_BC = _sets(proxy_sets, proxy(images)), _sets(private_sets, z_BC)
        kappa = agreement(private_BC, proxy_BC)
        classification = functional.cross_entropy(z_BC, labels_B)
        ranked = ranking(z_BC, torch.from_numpy(proxy_BC).to(z_BC.device))
        return {"loss": classification + kappa * ranked, "classification": classification, "ranking": ranked}

    return loss


def proxy_loss(proxy: ClassifierModule, private: ClassifierModule, temperature: float) -> Loss:
    """Returns the loss L_q = CE(u, y) + T^2 KL(softmax(z / T) || softmax(u / T)) of the proxy's logits u."""
    import torch
    from torch.nn import functional

    from fedvtc.learning.models.losses import distillation

    def loss(images: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            z_BC = private(images)
        u_BC = proxy(images)
        return functional.cross_entropy(u_BC, labels_B) + distillation(z_BC, u_BC, temperature)

    return loss


def _sets(sets: LabelSets, logits_BC: Tensor) -> NDArray[Any]:
    import torch

    return sets.of(logits_BC.float().cpu().numpy(), torch.rand(len(logits_BC)).numpy())


@contextmanager
def _part(client: FederatedClient, name: str, epoch: int) -> Iterator[None]:
    """Opens a phase whose draws differ from epoch to epoch."""
    with ExitStack() as stack:
        stack.enter_context(client.phase(name))
        if epoch:
            stack.enter_context(client.randomness(f"{name}/{epoch}"))
        yield


METHOD = FedType
