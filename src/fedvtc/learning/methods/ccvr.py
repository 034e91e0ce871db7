"""CCVR and the Gaussian head: after training, the server makes one head from the class statistics of all clients.

Sources: M. Luo et al., "No Fear of Heterogeneity: Classifier Calibration for Federated Learning with Non-IID Data",
NeurIPS 2021 (arXiv 2106.05001), `head=trained`. Z. Guan, Y. Zhou, X. Gu, "Capture Global Feature Statistics for
One-Shot Federated Learning", AAAI 2025 (arXiv 2503.06962), and F. Turazza et al., ICLR 2026 (arXiv 2602.01186),
`head=lda`.

Shapes: K classes held, D features, N draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import Config, MethodConfig, OptimizerConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.covariances import (
    around_one_mean,
    class_gaussians,
    covariance_KDD,
    from_triangles,
    linear_discriminant,
    to_triangles,
)
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Payload, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics, FloatArray
from fedvtc.learning.methods.base import Method, ServerState, Task
from fedvtc.learning.methods.fedavg import backbones_of
from fedvtc.learning.methods.local import LocalConfig

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class CCVRConfig(MethodConfig):
    """The keys of CCVR and the Gaussian head."""

    name: str = "ccvr"
    base: Literal["lg_fedavg", "fedavg", "local"] = "lg_fedavg"
    """Method of the rounds, with its defaults. `fedavg`: the paper's, for one backbone; `lg_fedavg`: averaged heads,
    for mixed backbones; `local`: no messages."""
    head: Literal["trained", "lda"] = "trained"
    """`trained`: CCVR, a head trained on features drawn from class Gaussians; `lda`: the closed form of a linear
    discriminant analysis from one pooled covariance."""
    source: Literal["pooled", "mixture"] = "pooled"
    """Gaussians of `trained`. `pooled`: one of each class, of all clients together; `mixture`: the clients' own, chosen
    in proportion to images (our addition)."""
    draws_per_class: Annotated[int, Field(ge=1)] = 2000
    """Features of each class that the server draws for `trained`."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the drawn features."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Features in a training step of the head."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="sgd", lr=0.01))
    """Optimizer of the head on the server."""
    sigma_floor: Annotated[float, Field(gt=0)] = 0.05
    """Smallest standard deviation of a drawn feature, which makes a singular covariance usable."""
    covariance: Literal["within", "total"] = "within"
    """Covariance of `lda`: around the mean of each class, or around the mean of all features."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight gamma of a multiple of the identity in the covariance of `lda`."""

    def problems(self, config: Config) -> list[str]:
        """Returns a text if models of several backbones would be averaged."""
        names = backbones_of(config)
        if self.base != "fedavg" or len(names) == 1:
            return []
        return [
            f"base: fedavg averages whole models, and population.backbones has {', '.join(names)}. "
            "Set method.base=lg_fedavg, or one backbone."
        ]

    def of_rounds(self) -> MethodConfig:
        """Returns the base; for `local` the keys of Local, whose rounds are equal."""
        return LocalConfig() if self.base == "local" else CCVRConfig(base=self.base)


class CCVR(Method[CCVRConfig]):
    """Runs the rounds of a base method; then uploads class statistics once, and broadcasts a head."""

    config_class = CCVRConfig

    def __init__(self, config: CCVRConfig, task: Task) -> None:
        from fedvtc.learning.methods import build, config_classes

        super().__init__(config, task)
        self._base = build(config_classes()[config.base](), task)

    def prepare(self, client: FederatedClient) -> None:
        """Prepares the base method."""
        self._base.prepare(client)

    def start(self) -> tuple[ServerState, Broadcast]:
        """Starts the base method."""
        state, broadcast = self._base.start()
        return {"base": state}, broadcast

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the shared parts of the base method, and the head of the closing exchange."""
        from fedvtc.learning.models.weights import load_weights

        self._base.receive(client, broadcast)
        if "head" in broadcast.payload:
            load_weights(client.classifier.head, broadcast.payload["head"])

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Runs a round of the base method."""
        return self._base.client_round(client, broadcast)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Runs a round of the base method, and keeps its head."""
        base, broadcast = self._base.server_round(state.get("base", {}), uploads, server)
        return {"base": base, "head": _head_of(broadcast.payload)}, broadcast

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Uploads the statistics of the client's features, of the model with the newest shared parts."""
        payload = self._payload(client.statistics("class_full"))
        return client.upload(payload)

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Merges the statistics exactly, and makes the head of their Gaussians."""
        size, config = self.task.feature_size, self.config
        merged = FeatureStatistics.empty(size, "class_full")
        pooled_DD, parts = np.zeros((size, size)), []
        for upload in uploads:
            statistics, own_DD = self._read(upload.payload)
            merged += statistics
            pooled_DD += own_DD
            if config.source == "mixture":
                parts.append(class_gaussians(statistics, config.sigma_floor))
        if config.head == "lda":
            head = self._discriminant(merged, pooled_DD + merged.scatter.sum(axis=0))
        else:
            gaussians = ClassGaussians.mixture(parts) if parts else class_gaussians(merged, config.sigma_floor)
            head = self._trained(gaussians, state.get("head", {}), server)
        return Broadcast(server.round, {"head": head})

    @property
    def has_receive(self) -> bool:
        """True if clients receive shared parts in the rounds of the base method."""
        return self._base.has_receive

    def largest_upload(self) -> Upload:
        """Builds the largest upload of a round of the base method."""
        return self._base.largest_upload()

    def largest_closing(self) -> Upload:
        """Builds the closing upload of a client that holds every class."""
        num_classes, size = self.task.num_classes, self.task.feature_size
        statistics = FeatureStatistics.of(np.zeros((num_classes, size)), np.arange(num_classes), "class_full")
        return replace(super().largest_closing(), payload=self._payload(statistics))

    def _payload(self, statistics: FeatureStatistics) -> dict[str, Arrays]:
        """Builds the message: counts, means and lower triangles, of one covariance per class or one pooled scatter."""
        is_pooled = self.config.head == "lda"
        matrices = statistics.scatter.sum(axis=0, keepdims=True) if is_pooled else covariance_KDD(statistics)
        return {
            "prototypes": {
                "classes": statistics.classes_K.astype(np.int32),
                "count": statistics.count_K.astype(np.int32),
                "mean": statistics.mean_KD.astype(np.float32),
            },
            "covariance": {"triangle": to_triangles(matrices)},
        }

    def _read(self, payload: Payload) -> tuple[FeatureStatistics, FloatArray]:
        """Returns the statistics of a message and its pooled scatter, of which one is zero."""
        size, prototypes = self.task.feature_size, payload["prototypes"]
        matrices, count_K = (
            from_triangles(payload["covariance"]["triangle"], size),
            prototypes["count"].astype(np.int64),
        )
        if self.config.head == "lda":
            pooled_DD, scatter_KDD = matrices[0], np.zeros((len(count_K), size, size))
        else:
            pooled_DD, scatter_KDD = np.zeros((size, size)), matrices * (count_K - 1)[:, None, None]
        arrays = {"prototypes": prototypes, "covariance": {"scatter": scatter_KDD}}
        return FeatureStatistics.from_arrays(arrays, "class_full"), pooled_DD

    def _discriminant(self, merged: FeatureStatistics, scatter_DD: FloatArray) -> Arrays:
        """Returns the head of the linear discriminant analysis, from the scatter around class means."""
        config = self.config
        if config.covariance == "total":
            scatter_DD = around_one_mean(merged, scatter_DD)
        return linear_discriminant(
            merged,
            scatter_DD / merged.num_images,
            shrinkage=config.shrinkage,
            floor=config.sigma_floor**2,
            num_classes=self.task.num_classes,
        )

    def _trained(self, gaussians: ClassGaussians, start: Arrays, server: Server) -> Arrays:
        """Trains the base's last head by cross-entropy on features that are drawn and normalised like a backbone's."""
        import torch
        from torch import nn
        from torch.nn import functional

        from fedvtc.learning.data.module import epoch_batches
        from fedvtc.learning.models.latents import LatentSampler
        from fedvtc.learning.models.optimizers import build_optimizer
        from fedvtc.learning.models.weights import load_weights, weights_of

        config, size = self.config, self.task.feature_size
        with self.task.shared_randomness("head"):
            head = nn.Linear(size, self.task.num_classes)
        if start:
            load_weights(head, start)
        stepper = build_optimizer(head.parameters(), config.optimizer)
        sampler = LatentSampler(gaussians, num_classes=self.task.num_classes, device=torch.device("cpu"))
        with server.phase("head"):
            labels_N = torch.tensor(sampler.classes).repeat_interleave(config.draws_per_class)
            features_ND = functional.layer_norm(sampler.draw(labels_N)[0], (size,))
            for _ in range(config.epochs):
                indices = epoch_batches(len(labels_N), config.batch_size, torch.default_generator)
                batches = ((features_ND[index_B], labels_N[index_B]) for index_B in indices)
                server.fit(head, batches, lambda x, y: functional.cross_entropy(head(x), y), stepper)
        return weights_of(head)


def _head_of(payload: Payload) -> Arrays:
    """Returns the head in the broadcast of a base method; empty if there is none."""
    if "head" in payload:
        return payload["head"]
    model = payload.get("model", {})
    return {name.removeprefix("head."): array for name, array in model.items() if name.startswith("head.")}


METHOD = CCVR
