"""FedCVAE-Ens: each client sends a decoder once, and the server draws a labelled set from all decoders.

Source: C. E. Heinbaugh, E. Luz-Ricca, H. Shao, "Data-Free One-Shot Federated Learning Under Very High Statistical
Heterogeneity", ICLR 2023. The paper trains one model on the server; here every client trains its own on the set.

Shapes: N images of the set, C classes, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig, OptimizerConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.methods._autoencoder import train_autoencoder
from fedvtc.learning.methods.base import ServerState
from fedvtc.learning.methods.local import LocalConfig, LocalRounds

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.data.generated import GeneratedImages
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.cvae import ConditionalVAE
    from fedvtc.learning.server import Server

_CHUNK = 500
"""Latents decoded at a time, so that their maps fit a cache."""


@section
class DecoderConfig:
    """The conditional variational autoencoder of a client and its training."""

    latent_size: Annotated[int, Field(ge=1)] = 10
    """Entries of a latent."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the decoder's last feature map; coarser maps have more channels."""
    epochs: Annotated[int, Field(ge=1)] = 15
    """Passes over the client's images, once, after the last round."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of encoder and decoder."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the KL divergence to N(0, I)."""


@section
class SetTrainingConfig:
    """The training of the clients' models on the generated set."""

    start: Literal["fresh", "trained"] = "fresh"
    """`fresh`: from the client's first weights, so that the client's rounds have no effect on its model; `trained`:
    from the weights after the last round."""
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the set."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the client's model, new for this training."""
    real_data: Literal["none", "mixed"] = "none"
    """`mixed` shuffles the client's own images among the images of the set (our addition)."""


@section
class FedCVAEConfig(MethodConfig):
    """The keys of FedCVAE-Ens."""

    name: str = "fedcvae"
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The conditional variational autoencoder of a client and its training."""
    num_images: Annotated[int, Field(ge=1)] = 5000
    """Images of the generated set."""
    truncation: Annotated[float, Field(gt=0)] = 3.0
    """Largest entry of a latent that the server draws from N(0, I)."""
    finetune: SetTrainingConfig = field(default_factory=SetTrainingConfig)
    """The training of the clients' models on the generated set."""

    def of_rounds(self) -> MethodConfig:
        """Returns the keys of Local, whose rounds are equal."""
        return LocalConfig()


class FedCVAE(LocalRounds[FedCVAEConfig]):
    """Trains as local; then uploads decoders and label counts once, and broadcasts generated images and labels."""

    config_class = FedCVAEConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the autoencoder, with equal initial weights on all clients."""
        client.attach("generator", self._new_generator())

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains the autoencoder on the client's own images; uploads its decoder and the images of each class."""
        config = self.config.decoder
        train_autoencoder(client, epochs=config.epochs, batch_size=config.batch_size)
        generator: ConditionalVAE = client.modules["generator"]  # type: ignore[assignment]
        payload = self._payload(generator, client.images.counts_C(self.task.num_classes))
        return client.upload(payload)

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Draws the set: labels by each client's label frequencies, latents from a truncated N(0, I)."""
        import torch

        from fedvtc.learning.data.generated import GeneratedImages
        from fedvtc.learning.models.cvae import truncated_normal
        from fedvtc.learning.models.weights import load_weights

        received, config = list(uploads), self.config
        decoder = self._new_generator().decoder.eval()
        numbers = set_shares([upload.num_images for upload in received], config.num_images)
        images, labels = [], []
        with server.phase("images"), torch.no_grad():
            for upload, number in zip(received, numbers, strict=True):
                if not number:
                    continue
                load_weights(decoder, upload.payload["generator"])
                count_C = torch.tensor(upload.payload["labels"]["count"], dtype=torch.float32)
                labels_N = torch.multinomial(count_C, number, replacement=True)
                latents_NL = truncated_normal(number, config.decoder.latent_size, bound=config.truncation)
                for latents_BL, labels_B in zip(latents_NL.split(_CHUNK), labels_N.split(_CHUNK), strict=True):
                    images.append(server.counted("decoder", len(labels_B), partial(decoder, latents_BL, labels_B)))
                labels.append(labels_N)
        return Broadcast(server.round, {"images": GeneratedImages.of(images, labels).to_arrays()})

    @property
    def has_finish(self) -> bool:
        """True: every client trains on the set."""
        return True

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Trains the whole classifier by cross-entropy on the set."""
        from fedvtc.learning.client.loop import keyed_randomness
        from fedvtc.learning.data.generated import GeneratedImages
        from fedvtc.learning.models.optimizers import build_optimizer

        config, generated = self.config.finetune, GeneratedImages.from_arrays(broadcast.payload["images"])
        if config.start == "fresh":
            with keyed_randomness(self.task.seed, round=0, client=client.id, purpose="backbone"):
                fresh = self.task.new_classifier(client.backbone_name)
            client.classifier.load_state_dict(fresh.state_dict())
        stepper = build_optimizer(client.classifier.parameters(), config.optimizer)
        with client.phase("finetune"):
            for _ in range(config.epochs):
                batches = self._set_batches(client, generated)
                client.fit("classifier", batches, optimizer=stepper, record_terms=False)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Returns the first images of each class of the set; None before the set is drawn."""
        from fedvtc.learning.data.generated import GeneratedImages

        if "images" not in broadcast.payload:
            return None
        return GeneratedImages.from_arrays(broadcast.payload["images"]).first(num_per_class)

    def largest_closing(self) -> Upload:
        """Builds the closing upload of a new decoder."""
        counts_C = np.ones(self.task.num_classes, dtype=np.int64)
        return replace(super().largest_closing(), payload=self._payload(self._new_generator(), counts_C))

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of the autoencoder's step, and of a step on the set, which a client keeps as pixels."""
        from fedvtc.learning.methods._step_bytes import autoencoder_bytes, classifier_bytes

        config, task = self.config, self.task
        pixels = config.num_images * task.num_channels * task.image_size**2
        step = classifier_bytes(classifier, task, config.finetune.batch_size, new_optimizer=True)
        return {
            "method.decoder.batch_size": autoencoder_bytes(self._new_generator(), task, config.decoder.batch_size),
            "method.finetune.batch_size": pixels + step,
        }

    def _set_batches(self, client: FederatedClient, generated: GeneratedImages) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields one shuffled epoch over the set and, if wanted, the client's own images."""
        import torch

        from fedvtc.learning.data.module import epoch_batches

        config, num_drawn = self.config.finetune, len(generated)
        num_images = num_drawn + (client.num_images if config.real_data == "mixed" else 0)
        for index_B in epoch_batches(num_images, config.batch_size, torch.default_generator):
            images, labels_B = generated.batch(index_B[index_B < num_drawn], client.device)
            own_B = index_B[index_B >= num_drawn] - num_drawn
            if len(own_B):
                own = client.images.augmented(client.images.inputs(own_B))
                images, labels_B = torch.cat([images, own]), torch.cat([labels_B, client.images.labels_N[own_B]])
            yield images, labels_B

    def _payload(self, generator: ConditionalVAE, counts_C: NDArray[np.int64]) -> dict[str, Arrays]:
        from fedvtc.learning.models.weights import weights_of

        return {"generator": weights_of(generator.decoder), "labels": {"count": counts_C.astype(np.int32)}}

    def _new_generator(self) -> ConditionalVAE:
        from fedvtc.learning.models.cvae import ConditionalVAE

        config, task = self.config.decoder, self.task
        with task.shared_randomness("generator"):
            return ConditionalVAE(
                latent_size=config.latent_size,
                num_classes=task.num_classes,
                num_channels=task.num_channels,
                image_size=task.image_size,
                width=config.width,
                label_in_encoder=False,
                reconstruction="cross_entropy" if task.num_channels == 1 else "squared_sigmoid",
                beta=config.beta,
                optimizer=config.optimizer,
            )


def set_shares(num_owned: Sequence[int], num_images: int) -> list[int]:
    """Divides the images of a set in proportion to the clients' images, rounded down; the last client has the rest."""
    shares = [num_images * owned // sum(num_owned) for owned in num_owned[:-1]]
    return [*shares, num_images - sum(shares)]


METHOD = FedCVAE
