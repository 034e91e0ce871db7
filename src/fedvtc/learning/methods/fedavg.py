"""FedAvg and FedProx: clients average whole models, of one backbone or within each backbone.

Sources: B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017
(arXiv 1602.05629); T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (arXiv 1812.06127).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedvtc.config.schema import Config, MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.learning.methods.base import Method, ServerState, Task

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


ALL = "all"
"""Group of all clients, in the server's state."""


@section
class FedAvgConfig(MethodConfig):
    """The keys of FedAvg and FedProx."""

    name: str = "fedavg"
    groups: Literal["all", "architecture"] = "all"
    """Clients whose models are averaged. `all`: all clients, which then have one backbone. `architecture`: the clients
    of each backbone apart; a client that is alone with its backbone trains as `local` does."""
    prox_mu: Annotated[float, Field(ge=0)] = 0.0
    """Weight mu of FedProx, which pulls the weights to the received weights; 0 is FedAvg."""

    def problems(self, config: Config) -> list[str]:
        """Returns a text if models of several backbones would be averaged."""
        names = backbones_of(config)
        if self.groups == "architecture" or len(names) == 1:
            return []
        return [
            f"name: {self.name} averages whole models, and population.backbones has {', '.join(names)}. "
            "Set method.groups=architecture, or one backbone."
        ]


class FedAvg(Method[FedAvgConfig]):
    """Uploads models; broadcasts their means, weighted by images."""

    config_class = FedAvgConfig

    def prepare(self, client: FederatedClient) -> None:
        """Starts all clients of a backbone from equal weights."""
        with self.task.shared_randomness("model"):
            model = self.task.new_classifier(client.backbone_name)
        client.classifier.load_state_dict(model.state_dict())

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the mean model of the client's group."""
        from fedvtc.learning.models.weights import load_weights

        if "model" in broadcast.payload:
            load_weights(client.classifier, broadcast.payload["model"])

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE + mu/2 ||w - w_received||^2 with a new optimizer, and uploads the trained model."""
        from fedvtc.learning.models.weights import weights_of

        classifier, stepper = client.classifier, client.classifier.configure_optimizers()
        received = [weight.detach().clone() for weight in classifier.parameters()]

        def proximal_loss(images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            terms = classifier.loss_terms(images, labels_B)
            distance = squared_distance(classifier.parameters(), received)
            return {**terms, "loss": terms["loss"] + 0.5 * self.config.prox_mu * distance, "proximal": distance}

        loss = proximal_loss if self.config.prox_mu else None
        with client.phase("train"):
            for batches in client.passes():
                client.fit("classifier", batches, loss=loss, optimizer=stepper)
        payload = {"model": weights_of(classifier)}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages within each group: sum_k n_k w_k / sum_k n_k; a group without an upload keeps its last mean."""
        means: dict[str, WeightedMean] = {}
        for upload in uploads:
            group = upload.backbone if self.config.groups == "architecture" else ALL
            means.setdefault(group, WeightedMean()).add(upload.payload["model"], upload.num_images)
        models: dict[str, Arrays] = {**state.get("models", {})}
        models |= {group: mean.value() for group, mean in means.items()}
        return {"models": models}, broadcast_of(server.round, models)

    def largest_upload(self) -> Upload:
        """Builds an upload with the largest model."""
        return largest_model(super().largest_upload(), self.task)


def backbones_of(config: Config) -> list[str]:
    """Returns the different backbones of the population."""
    return list(dict.fromkeys(backbone.name for backbone in config.population.backbones))


def broadcast_of(round: int, models: Mapping[str, Arrays]) -> Broadcast:
    """Builds the broadcast of mean models by backbone, or of one model of all clients."""
    if ALL in models:
        return Broadcast(round, {"model": models[ALL]})
    return Broadcast(round, groups={group: {"model": model} for group, model in sorted(models.items())})


def largest_model(upload: Upload, task: Task) -> Upload:
    """Adds the model with the most weights to an upload."""
    from fedvtc.learning.models import parameter_count
    from fedvtc.learning.models.weights import weights_of

    models = {name: task.new_classifier(name) for name in task.backbones}
    largest = max(models, key=lambda name: parameter_count(models[name]))
    return replace(upload, payload={**upload.payload, "model": weights_of(models[largest])}, backbone=largest)


def squared_distance(weights: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """Returns the squared distance of two lists of tensors, summed over all entries."""
    import torch

    parts = [(weight - other).square().sum() for weight, other in zip(weights, others, strict=True)]
    return torch.stack(parts).sum()


METHOD = FedAvg
