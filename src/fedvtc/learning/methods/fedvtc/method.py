"""The client's half and the server's half of FedVTC.

Shapes: K classes held, N images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedvtc.learning.exchange.accounting import PrivacyLoss
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.methods.fedvtc.config import FedVTCConfig
from fedvtc.learning.methods.fedvtc.releases import privacy_loss, statistics_to_send
from fedvtc.learning.methods.fedvtc.wire import (
    read_gaussians,
    received_statistics,
    sent,
    sent_statistics,
    sources_payload,
)

if TYPE_CHECKING:
    from torch import Tensor, device

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.fedvtc.generator import VTCModule
    from fedvtc.learning.methods.fedvtc.images import ImageSource
    from fedvtc.learning.methods.fedvtc.joint import JointModule
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.server import Server


class FedVTC(Method[FedVTCConfig]):
    """Uploads statistics and generators; broadcasts global prototypes, their spread and the mean generator."""

    config_class = FedVTCConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the generator, with equal initial weights on all clients."""
        generator = self._new_generator()
        if self.config.generator.training == "joint":
            client.attach("generator", generator, self._joint(client, generator).configure_optimizers())
        else:
            client.attach("generator", generator)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains the classifier and the generator, in turn or together (steps 1 to 5 of docs/method.md)."""
        from fedvtc.learning.methods.fedvtc.steps import generator_of, train_jointly

        anchors, config = self._receive(client, broadcast), self.config.generator
        is_joint = config.training == "joint"
        if not is_joint:
            client.train()
        if self.config.finetune.when in ("every_round", "both") and anchors is not None:
            self._finetune(client, broadcast, self.config.finetune.epochs_per_round)
        # After fine-tuning, which moves the features that the generator decodes.
        if is_joint:
            train_jointly(client, self._joint(client, generator_of(client)), config, self.config.privacy)
        statistics = client.statistics(self.config.round_form)
        if not is_joint:
            self._train_generator(client, statistics, anchors)
        if self.config.privacy.noise_multiplier > 0:
            statistics = statistics_to_send(client, self.config, self.task, self.config.round_form, "privacy")
        payload = self._payload(statistics, generator_of(client))
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Merges statistics exactly and averages generators, weighted by images."""
        config, mean_generator, round = self.config, WeightedMean(), 0
        # Of all participants so far: a client that does not take part in this round may have the largest privacy loss.
        num_images = set(map(int, state.get("num_images", ())))
        merged = FeatureStatistics.empty(self.task.feature_size, config.round_form)
        clients: dict[str, Mapping[str, Arrays]] = dict(state.get("clients", {}))
        for upload in uploads:
            round = upload.round
            num_images.add(upload.num_images)
            statistics = received_statistics(upload.payload, config.round_form)
            merged += statistics
            if config.generator.aggregation == "mean":
                mean_generator.add(upload.payload["generator"], upload.num_images)
            if config.keeps_clients and config.upload == "every_round":
                kept = self._gaussians(statistics).to_payload()
                if config.generator.aggregation == "exchange":
                    kept["generator"] = upload.payload["generator"]
                clients[f"{upload.client:06d}"] = kept
        if loss := privacy_loss(self.config, num_images, num_rounds=round, closes=False):
            server.scalars |= loss.record()
        anchors = self._gaussians(merged)
        if "anchors" in state:
            anchors = anchors.keeping(read_gaussians(state["anchors"]))
        kept_sizes = {"num_images": np.array(sorted(num_images))} if config.privacy.training_noise > 0 else {}
        state = {"anchors": anchors.to_payload(), "clients": clients, **kept_sizes}
        payload: dict[str, Arrays] = anchors.to_payload()
        if not mean_generator.is_empty:
            payload["generator"] = mean_generator.value()
        if config.finetune.when in ("every_round", "both"):
            payload |= sources_payload(clients)
        return state, Broadcast(round, sent(payload, config.wire))

    @property
    def has_closing(self) -> bool:
        """True if clients upload Gaussians and generators after the last round."""
        return self.config.upload == "once" and self.has_finish

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload | None:
        """Uploads the client's Gaussians, and the generator after its closing passes.

        A client whose generator has never trained uploads nothing: the images would be noise with a label.
        """
        from fedvtc.learning.methods.fedvtc.steps import generator_of, train_for_closing
        from fedvtc.learning.models.weights import equal_weights

        if not self.has_closing:
            return None
        train_for_closing(client, self.config.generator)
        if equal_weights(generator_of(client), self._new_generator()):
            return client.upload()
        form = self.config.statistics.covariance
        statistics = statistics_to_send(client, self.config, self.task, form, "privacy/closing")
        payload = self._closing_payload(self._gaussians(statistics), generator_of(client))
        return client.upload(payload)

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Collects the clients' Gaussians and generators for fine-tuning."""
        uploads = [upload for upload in uploads if upload.payload]
        clients = {f"{upload.client:06d}": upload.payload for upload in uploads}
        num_images = (upload.num_images for upload in uploads)
        if loss := privacy_loss(self.config, num_images, num_rounds=server.round - 1, closes=True):
            server.scalars |= loss.record()
        payload = {**state["anchors"], **sources_payload(clients)}
        return Broadcast(server.round, sent(payload, self.config.wire))

    def last_broadcast(self, state: ServerState, broadcast: Broadcast) -> Broadcast:
        """Adds the clients' Gaussians and generators to the last round's broadcast, for fine-tuning."""
        if not self.has_finish or self.has_closing:
            return broadcast
        sources = sent(sources_payload(state["clients"]), self.config.wire)
        return Broadcast(broadcast.round, {**broadcast.payload, **sources})

    @property
    def has_finish(self) -> bool:
        """True if clients fine-tune after the last round."""
        return self.config.finetune.when in ("end", "both")

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Fine-tunes on images of the last broadcast."""
        if self.has_finish:
            self._receive(client, broadcast)
            self._finetune(client, broadcast, self.config.finetune.epochs)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Draws images as fine-tuning does, by a copy of the client's generator."""
        from fedvtc.learning.methods.fedvtc.steps import generator_of
        from fedvtc.learning.models.weights import load_weights

        if not broadcast.payload:
            return None
        generator = copy.deepcopy(generator_of(client))
        if "generator" in broadcast.payload:
            load_weights(generator.decoder, broadcast.payload["generator"])
        with client.randomness("samples"):
            drawn = self._source(generator, broadcast, client.device).draw(num_per_class)
            return drawn.all(), drawn.labels_N

    def privacy_loss(self, num_images: Iterable[int]) -> PrivacyLoss | None:
        """Returns the privacy loss of all messages of the client with the largest loss, if there is noise."""
        return privacy_loss(self.config, num_images, num_rounds=self.task.num_rounds, closes=self.has_closing)

    def largest_upload(self) -> Upload:
        """Builds an upload with statistics of all classes and the weights of a new generator."""
        statistics = self._largest_statistics(self.config.round_form)
        return replace(super().largest_upload(), payload=self._payload(statistics, self._new_generator()))

    def largest_closing(self) -> Upload:
        """Builds a closing upload with Gaussians of all classes and the weights of a new generator."""
        if not self.has_closing:
            return super().largest_closing()
        gaussians = self._gaussians(self._largest_statistics(self.config.statistics.covariance))
        return replace(super().largest_closing(), payload=self._closing_payload(gaussians, self._new_generator()))

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of generator training, of fine-tuning, and of a grid of generated images."""
        from fedvtc.learning.methods.fedvtc.footprint import working_bytes

        decoder = self._new_generator().decoder.to("meta")
        return working_bytes(self.config, self.task, decoder, classifier, samples_per_class)

    def _payload(self, statistics: FeatureStatistics, generator: VTCModule) -> dict[str, Arrays]:
        payload = sent_statistics(statistics, self.config.wire)
        if self.config.upload == "every_round":
            payload |= self._sent_generator(generator)
        return payload

    def _closing_payload(self, gaussians: ClassGaussians, generator: VTCModule) -> dict[str, Arrays]:
        return {**sent(gaussians.to_payload(), self.config.wire), **self._sent_generator(generator)}

    def _sent_generator(self, generator: VTCModule) -> dict[str, Arrays]:
        """Builds the payload kind `generator`: the decoder alone, because a learned sigma_k stays with its client."""
        from fedvtc.learning.models.weights import weights_of

        if self.config.generator.aggregation == "none":
            return {}
        return sent({"generator": weights_of(generator.decoder)}, self.config.wire)

    def _largest_statistics(self, form: Form) -> FeatureStatistics:
        num_classes, size = self.task.num_classes, self.task.feature_size
        return FeatureStatistics.of(np.zeros((num_classes, size)), np.arange(num_classes), form)

    def _receive(self, client: FederatedClient, broadcast: Broadcast) -> ClassGaussians | None:
        """Step 1: installs the prototypes and the generator of a broadcast, and returns the global class Gaussians.

        Returns None before the first aggregation.
        """
        from fedvtc.learning.methods.fedvtc.steps import generator_of
        from fedvtc.learning.models.weights import load_weights

        if not broadcast.payload:
            return None
        anchors = read_gaussians(broadcast.payload)
        client.set_prototypes(anchors, self.config.prototype_weight)
        if "generator" in broadcast.payload:
            load_weights(generator_of(client).decoder, broadcast.payload["generator"])
        return anchors

    def _train_generator(
        self, client: FederatedClient, statistics: FeatureStatistics, anchors: ClassGaussians | None
    ) -> None:
        """Step 4: trains psi_k (and log sigma_k) on L_rc + beta D_KL + gamma L_DM, with the classifier frozen."""
        from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget
        from fedvtc.learning.methods.fedvtc.steps import train_generator

        config, local = self.config.generator, self._gaussians(statistics)
        matched_K = local.classes_K if anchors is None else anchors.classes_K
        if config.dm_classes == "held":
            matched_K = np.intersect1d(matched_K, local.classes_K)
        target = GeneratorTarget.of(client.classifier, local, anchors, matched_K, num_classes=self.task.num_classes)
        train_generator(client, target, epochs=config.epochs, batch_size=config.batch_size)

    def _finetune(self, client: FederatedClient, broadcast: Broadcast, epochs: int) -> None:
        """Trains the whole classifier by cross-entropy on images x = psi(v), the same number of each class."""
        from fedvtc.learning.methods.fedvtc.passes import Passes
        from fedvtc.learning.methods.fedvtc.steps import finetune, generator_of

        config, source = self.config.finetune, self._source(generator_of(client), broadcast, client.device)
        finetune(
            client,
            Passes(source, client.images, config, partial(client.counted, "pool")).draw,
            epochs=epochs,
            batch_size=config.batch_size,
            optimizer=config.optimizer,
            schedule=config.schedule,
            averaging=config.averaging,
        )
        if config.real_data == "after":
            client.train(phase="finetune_real")

    def _source(self, generator: VTCModule, broadcast: Broadcast, device: device) -> ImageSource:
        from fedvtc.learning.methods.fedvtc.images import ImageSource

        return ImageSource.of(broadcast.payload, generator.decoder, self.task.num_classes, device)

    def _gaussians(self, statistics: FeatureStatistics) -> ClassGaussians:
        config = self.config.statistics
        return ClassGaussians.of(statistics, sigma_floor=config.sigma_floor, prior_count=config.prior_count)

    def _joint(self, client: FederatedClient, generator: VTCModule) -> JointModule:
        from fedvtc.learning.methods.fedvtc.joint import JointModule

        config = self.config.generator
        weight = config.reconstruction_weight
        return JointModule(client.classifier, generator, reconstruction_weight=weight, noise=config.noise)

    def _new_generator(self) -> VTCModule:
        from fedvtc.learning.methods.fedvtc.generator import VTCModule

        with self.task.shared_randomness("generator"):
            return VTCModule.of(self.config.generator, self.task)
