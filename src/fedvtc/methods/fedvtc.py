"""FedVTC: clients share feature statistics and train generators that turn latents into images to fine-tune on.

Source: Z. Niu, H. Dong, A. K. Qin, "Bridging Generalization Gap of Heterogeneous Federated Clients Using Generative
Models", ICLR 2026 (arXiv 2508.01669). The authors' code and hyper-parameters are not public, so this is an independent
implementation: what the paper leaves open is a key below, and docs/method.md says which reading is the default and why.

Shapes: K classes held, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedvtc.config.schema import MethodConfig, OptimizerConfig
from fedvtc.gaussians import ClassGaussians
from fedvtc.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.methods.base import Method, ServerState
from fedvtc.seeding import SERVER
from fedvtc.statistics import FeatureStatistics, Form

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.client import FederatedClient
    from fedvtc.models.latents import LatentSampler
    from fedvtc.models.vtc import VTCModule


@dataclass(frozen=True)
class StatisticsConfig:
    """What clients say of their features."""

    covariance: Form = "client_diagonal"
    """`scalar`: one spread; `client_diagonal`: one per feature; `class_diagonal`: also per class; `class_full`: a
    matrix per class."""
    sigma_floor: float = 0.05
    """Smallest standard deviation, above 0; features are normalised to unit variance."""
    prior_count: float = 10.0
    """Images that the pooled diagonal counts for in a full covariance: more is more shrinkage."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The VTC and its training."""

    epochs: int = 2
    """Passes over the client's images per round, at least 1."""
    batch_size: int = 32
    """Images per step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the generator is stepped."""
    width: int = 32
    """Channels of the generator's last map before the image; coarser maps have more."""
    aggregation: Literal["mean", "none"] = "mean"
    """`mean`: generators are averaged by images; `none`: they stay with their clients, statistics alone are shared."""
    sigma: Literal["statistics", "learned"] = "statistics"
    """The noise sigma_k on features: the client's measured spread, or learned from it by the generator's loss."""
    beta: float = 1.0
    """Weight of the KL divergence to the global class Gaussian, at least 0."""
    gamma: float = 1.0
    """Weight of distribution matching, at least 0."""
    dm_samples: int = 4
    """Latents drawn per class and step for distribution matching."""
    dm_classes: Literal["all", "held"] = "all"
    """Classes of distribution matching: all that have a global prototype, or those that the client holds."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning on generated images."""

    when: Literal["end", "every_round", "both", "never"] = "end"
    """`end`: once, after the last round; `every_round`: after local training, before statistics; `both`; `never`."""
    epochs: int = 6
    """Passes at the end, each over images drawn afresh, at least 1."""
    epochs_per_round: int = 1
    """Passes in a round, where there is fine-tuning in every round."""
    images_per_class: int = 200
    """Images of each class per pass."""
    batch_size: int = 32
    """Images per step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the classifier is stepped; a new optimizer for each fine-tuning."""
    latents: Literal["class", "client_mixture"] = "class"
    """`class`: v ~ N(c^y, sigma^2) of the server; `client_mixture`: from the clients' own Gaussians of class y."""
    augment: Literal["none", "affine"] = "none"
    """Light affine changes of the generated images."""
    real_data: Literal["none", "after", "mixed"] = "none"
    """`mixed`: the client's own images are shuffled among the generated ones; `after`: a pass over them follows."""


@dataclass(frozen=True)
class FedVTCConfig(MethodConfig):
    """Every switch of the method."""

    name: str = "fedvtc"
    prototype_weight: float = 1.0
    """Weight lambda of the distance to the global prototype in local training, at least 0."""
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """What clients say of their features."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The VTC and its training."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning on generated images."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one line each."""
        at_least: dict[str, tuple[float, float]] = {
            "prototype_weight": (self.prototype_weight, 0),
            "statistics.prior_count": (self.statistics.prior_count, 0),
            "generator.epochs": (self.generator.epochs, 1),
            "generator.batch_size": (self.generator.batch_size, 1),
            "generator.width": (self.generator.width, 1),
            "generator.beta": (self.generator.beta, 0),
            "generator.gamma": (self.generator.gamma, 0),
            "generator.dm_samples": (self.generator.dm_samples, 1),
            "finetune.epochs": (self.finetune.epochs, 1),
            "finetune.epochs_per_round": (self.finetune.epochs_per_round, 1),
            "finetune.images_per_class": (self.finetune.images_per_class, 1),
            "finetune.batch_size": (self.finetune.batch_size, 1),
        }
        above_zero = {
            "statistics.sigma_floor": self.statistics.sigma_floor,
            "generator.optimizer.lr": self.generator.optimizer.lr,
            "finetune.optimizer.lr": self.finetune.optimizer.lr,
        }
        return [
            *(f"{key}: must be at least {low}, not {value}" for key, (value, low) in at_least.items() if value < low),
            *(f"{key}: must be above 0, not {value}" for key, value in above_zero.items() if value <= 0),
        ]


class FedVTC(Method[FedVTCConfig]):
    """Statistics and generators up; global prototypes, spread and the mean generator down."""

    config_class = FedVTCConfig

    def prepare(self, client: FederatedClient) -> None:
        """All clients start from the same generator."""
        client.classifier.prototype_weight = self.config.prototype_weight
        client.set_generator(self._new_generator())

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """The alternating training of one round (METHOD steps 1 to 5 of docs/method.md)."""
        anchors = self._receive(client, broadcast)
        client.train()
        if self.config.finetune.when in ("every_round", "both") and anchors is not None:
            self._finetune(client, broadcast, self.config.finetune.epochs_per_round)
        statistics = client.statistics(self.config.statistics.covariance)
        self._train_generator(client, statistics, anchors)
        payload: dict[str, Arrays] = dict(statistics.to_arrays())
        if self.config.generator.aggregation == "mean":
            payload["generator"] = client.generator_weights()
        return Upload(client.id, client.round, client.num_images, payload, dict(client.scalars))

    def server_round(self, state: ServerState, uploads: Iterable[Upload]) -> tuple[ServerState, Broadcast]:
        """Merges statistics exactly and averages generators by images, one upload at a time."""
        merged: FeatureStatistics | None = None
        generator, round = WeightedMean(), 0
        clients: dict[str, Mapping[str, Arrays]] = dict(state.get("clients", {}))
        for upload in uploads:
            round = upload.round
            statistics = FeatureStatistics.from_arrays(upload.payload, self.config.statistics.covariance)
            merged = statistics if merged is None else merged + statistics
            if "generator" in upload.payload:
                generator.add(upload.payload["generator"], upload.num_images)
            if self.config.finetune.latents == "client_mixture":
                clients[f"{upload.client:06d}"] = self._gaussians(statistics).to_payload()
        assert merged is not None, "a round has at least one participant"
        anchors = self._gaussians(merged)
        if "anchors" in state:
            anchors = anchors.keeping(_read(state["anchors"]))
        payload: dict[str, Arrays] = anchors.to_payload()
        if not generator.is_empty:
            payload["generator"] = generator.value()
        if clients:
            mixture = ClassGaussians.mixture([_read(clients[client]) for client in sorted(clients)]).to_payload()
            payload["mixture"] = {**mixture["prototypes"], **mixture["covariance"]}
        return {"anchors": anchors.to_payload(), "clients": clients}, Broadcast(round, payload)

    @property
    def has_finish(self) -> bool:
        """Whether clients fine-tune after the last round."""
        return self.config.finetune.when in ("end", "both")

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Fine-tunes on images of the last broadcast."""
        if self.has_finish:
            self._receive(client, broadcast)
            self._finetune(client, broadcast, self.config.finetune.epochs)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Images of the latents that fine-tuning draws, and their labels."""
        if not broadcast.payload:
            return None
        self._receive(client, broadcast)
        with client.randomness("samples"):
            sampler = self._sampler(client, broadcast)
            return self._generate(client, sampler, num_per_class)

    def payload_bytes(self, num_clients: int) -> dict[str, dict[str, int]]:
        """All classes held; doubles go up, floats come down."""
        num_classes, size = self.task.num_classes, self.task.feature_size
        spread = {
            "scalar": 1,
            "client_diagonal": size,
            "class_diagonal": num_classes * size,
            "class_full": num_classes * size**2,
        }[self.config.statistics.covariance]
        up = {"prototypes": num_classes * (size + 2) * 8, "covariance": spread * 8}
        down = {"prototypes": num_classes * (size * 4 + 16), "covariance": spread * 4}
        if self.config.generator.aggregation == "mean":
            weights = sum(array.nbytes for array in self._new_generator().shared_weights().values())
            up["generator"] = down["generator"] = weights
        if self.config.finetune.latents == "client_mixture":
            row_spread = size**2 if self.config.statistics.covariance == "class_full" else size
            down["mixture"] = num_clients * num_classes * (16 + 4 * size + 4 * row_spread)
        return {"up": up, "down": down}

    def _receive(self, client: FederatedClient, broadcast: Broadcast) -> ClassGaussians | None:
        """Step 1: c, sigma, psi. None before the server has any."""
        if not broadcast.payload:
            return None
        anchors = ClassGaussians.from_arrays(broadcast.payload["prototypes"], broadcast.payload["covariance"])
        client.set_prototypes(anchors)
        if "generator" in broadcast.payload:
            client.load_generator_weights(broadcast.payload["generator"])
        return anchors

    def _train_generator(
        self, client: FederatedClient, statistics: FeatureStatistics, anchors: ClassGaussians | None
    ) -> None:
        """Step 4: psi_k (and log sigma_k) on L_rc + beta D_KL + gamma L_DM, the classifier frozen."""
        from fedvtc.models.vtc import GeneratorTarget

        config, local = self.config.generator, self._gaussians(statistics)
        matched_K = local.classes_K if anchors is None else anchors.classes_K
        if config.dm_classes == "held":
            matched_K = np.intersect1d(matched_K, local.classes_K)
        client.train_generator(
            GeneratorTarget.of(client.classifier, local, anchors, matched_K, num_classes=self.task.num_classes),
            epochs=config.epochs,
            batch_size=config.batch_size,
        )

    def _finetune(self, client: FederatedClient, broadcast: Broadcast, epochs: int) -> None:
        """The whole classifier, by cross-entropy, on images x = psi(v), the same number of each class."""
        from fedvtc.data.module import random_affine

        config, sampler = self.config.finetune, self._sampler(client, broadcast)

        def draw_epoch() -> tuple[Tensor, Tensor]:
            images, labels_N = self._generate(client, sampler, config.images_per_class)
            return (random_affine(images) if config.augment == "affine" else images), labels_N

        client.finetune(
            draw_epoch,
            epochs=epochs,
            batch_size=config.batch_size,
            optimizer=config.optimizer,
            mix_real=config.real_data == "mixed",
        )
        if config.real_data == "after":
            client.train(phase="finetune_real")

    def _sampler(self, client: FederatedClient, broadcast: Broadcast) -> LatentSampler:
        from fedvtc.models.latents import LatentSampler

        payload = broadcast.payload
        if self.config.finetune.latents == "client_mixture":
            gaussians = ClassGaussians.from_arrays(payload["mixture"], payload["mixture"])
        else:
            gaussians = ClassGaussians.from_arrays(payload["prototypes"], payload["covariance"])
        return LatentSampler(gaussians, num_classes=self.task.num_classes, device=client.device)

    def _generate(self, client: FederatedClient, sampler: LatentSampler, num_per_class: int) -> tuple[Tensor, Tensor]:
        import torch

        labels_N = torch.tensor(sampler.classes, device=client.device).repeat_interleave(num_per_class)
        return client.generate(sampler.draw(labels_N)), labels_N

    def _gaussians(self, statistics: FeatureStatistics) -> ClassGaussians:
        config = self.config.statistics
        return ClassGaussians.of(statistics, sigma_floor=config.sigma_floor, prior_count=config.prior_count)

    def _new_generator(self) -> VTCModule:
        from fedvtc.models.vtc import VTCModule
        from fedvtc.training import keyed_randomness

        config = self.config.generator
        with keyed_randomness(self.task.seed, round=0, client=SERVER, purpose="generator"):
            return VTCModule(
                feature_size=self.task.feature_size,
                num_channels=self.task.num_channels,
                image_size=self.task.image_size,
                width=config.width,
                beta=config.beta,
                gamma=config.gamma,
                matching_samples=config.dm_samples,
                learn_sigma=config.sigma == "learned",
                optimizer=config.optimizer,
            )


def _read(payload: Mapping[str, Arrays]) -> ClassGaussians:
    return ClassGaussians.from_arrays(payload["prototypes"], payload["covariance"])


METHOD = FedVTC
