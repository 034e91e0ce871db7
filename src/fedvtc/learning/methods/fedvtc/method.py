"""What clients and the server do in a round of FedVTC, and at the end.

Shapes: K classes held, N images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.methods.fedvtc.config import FedVTCConfig
from fedvtc.learning.seeding import SERVER

if TYPE_CHECKING:
    from torch import Tensor, device

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.fedvtc.generator import VTCModule
    from fedvtc.learning.methods.fedvtc.images import ImageSource


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
        if self.config.generator.aggregation != "none":
            payload["generator"] = client.generator_weights()
        return Upload(client.id, client.round, client.num_images, payload, dict(client.scalars))

    def server_round(self, state: ServerState, uploads: Iterable[Upload]) -> tuple[ServerState, Broadcast]:
        """Merges statistics exactly and averages generators by images, one upload at a time."""
        config, mean_generator, round = self.config, WeightedMean(), 0
        merged = FeatureStatistics.empty(self.task.feature_size, config.statistics.covariance)
        clients: dict[str, Mapping[str, Arrays]] = dict(state.get("clients", {}))
        for upload in uploads:
            round = upload.round
            statistics = FeatureStatistics.from_arrays(upload.payload, config.statistics.covariance)
            merged += statistics
            if config.generator.aggregation == "mean":
                mean_generator.add(upload.payload["generator"], upload.num_images)
            if config.keeps_clients:
                kept = self._gaussians(statistics).to_payload()
                if config.generator.aggregation == "exchange":
                    kept["generator"] = upload.payload["generator"]
                clients[f"{upload.client:06d}"] = kept
        anchors = self._gaussians(merged)
        if "anchors" in state:
            anchors = anchors.keeping(_read(state["anchors"]))
        state = {"anchors": anchors.to_payload(), "clients": clients}
        payload: dict[str, Arrays] = anchors.to_payload()
        if not mean_generator.is_empty:
            payload["generator"] = mean_generator.value()
        if config.finetune.when in ("every_round", "both"):
            payload |= self._sources(clients)
        return state, Broadcast(round, payload)

    def last_broadcast(self, state: ServerState, broadcast: Broadcast) -> Broadcast:
        """The last round's, and what only fine-tuning needs: the clients' Gaussians and generators."""
        if not self.has_finish:
            return broadcast
        return Broadcast(broadcast.round, {**broadcast.payload, **self._sources(state["clients"])})

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
        """Images as fine-tuning draws them; the client stays as it is."""
        if not broadcast.payload:
            return None
        generator = copy.deepcopy(client.generator)
        assert generator is not None
        if "generator" in broadcast.payload:
            generator.load_shared_weights(broadcast.payload["generator"])
        with client.randomness("samples"):
            return self._source(generator, broadcast, client.device).draw(num_per_class)

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
        weights = sum(array.nbytes for array in self._new_generator().shared_weights().values())
        if self.config.generator.aggregation != "none":
            up["generator"] = weights
        if self.config.generator.aggregation == "mean":
            down["generator"] = weights
        if self.config.keeps_clients and self.config.finetune.when != "never":
            row_spread = size**2 if self.config.statistics.covariance == "class_full" else size
            down["mixture"] = num_clients * num_classes * (24 + 4 * size + 4 * row_spread)
        if self.config.generator.aggregation == "exchange" and self.config.finetune.when != "never":
            down["generators"] = num_clients * weights
        return {"up": up, "down": down}

    def _receive(self, client: FederatedClient, broadcast: Broadcast) -> ClassGaussians | None:
        """Step 1: c, sigma, psi. None before the server has any."""
        if not broadcast.payload:
            return None
        anchors = _read(broadcast.payload)
        client.set_prototypes(anchors)
        if "generator" in broadcast.payload:
            client.load_generator_weights(broadcast.payload["generator"])
        return anchors

    def _train_generator(
        self, client: FederatedClient, statistics: FeatureStatistics, anchors: ClassGaussians | None
    ) -> None:
        """Step 4: psi_k (and log sigma_k) on L_rc + beta D_KL + gamma L_DM, the classifier frozen."""
        from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget

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
        from fedvtc.learning.data.module import random_affine

        assert client.generator is not None
        config, source = self.config.finetune, self._source(client.generator, broadcast, client.device)

        def draw_epoch() -> tuple[Tensor, Tensor]:
            images, labels_N = source.draw(config.images_per_class)
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

    def _sources(self, clients: Mapping[str, Mapping[str, Arrays]]) -> dict[str, Arrays]:
        """The kinds `mixture` (the clients' own Gaussians, row by row) and `generators` (one weight set a client)."""
        if not clients:
            return {}
        order = sorted(clients)
        parts = [_read(clients[client]) for client in order]
        mixture = ClassGaussians.mixture(parts).to_payload()
        owner_K = np.repeat(np.arange(len(parts)), [len(part.classes_K) for part in parts])
        payload: dict[str, Arrays] = {
            "mixture": {**mixture["prototypes"], **mixture["covariance"], "owner": owner_K},
        }
        if self.config.generator.aggregation == "exchange":
            generators = [clients[client]["generator"] for client in order]
            payload["generators"] = {
                name: np.stack([generator[name] for generator in generators]) for name in generators[0]
            }
        return payload

    def _source(self, generator: VTCModule, broadcast: Broadcast, device: device) -> ImageSource:
        from fedvtc.learning.methods.fedvtc.images import ImageSource

        return ImageSource.of(broadcast.payload, generator.decoder, self.task.num_classes, device)

    def _gaussians(self, statistics: FeatureStatistics) -> ClassGaussians:
        config = self.config.statistics
        return ClassGaussians.of(statistics, sigma_floor=config.sigma_floor, prior_count=config.prior_count)

    def _new_generator(self) -> VTCModule:
        from fedvtc.learning.client.loop import keyed_randomness
        from fedvtc.learning.methods.fedvtc.generator import VTCModule

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
