"""GeFL with a conditional VAE: clients average a generator of images, which augments every classifier.

Source: H. Kang et al., "GeFL: Model-Agnostic Federated Learning with Generative Models", 2024 (arXiv 2412.18460).

Shapes: B images of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
from pydantic import Field

from fedvtc.config.schema import Config, MethodConfig, OptimizerConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload, WeightedMean
from fedvtc.learning.methods._autoencoder import train_autoencoder
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.methods.fedavg import largest_model

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.cvae import ConditionalVAE
    from fedvtc.learning.server import Server


@section
class GeneratorConfig:
    """The generator, a conditional variational autoencoder, and its training."""

    latent_size: Annotated[int, Field(ge=1)] = 16
    """Entries of a latent."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the decoder's last feature map; coarser maps have more channels."""
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the client's images in a round."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(weight_decay=1e-3))
    """Optimizer of encoder and decoder; the optimizer's state is kept from round to round."""


@section
class GeFLConfig(MethodConfig):
    """The keys of GeFL."""

    name: str = "gefl"
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator, a conditional variational autoencoder, and its training."""
    groups: Literal["architecture", "none"] = "architecture"
    """Averages of classifiers. `architecture`: within each backbone, so that classifiers are sent; `none`: classifiers
    stay with their clients, and the generator alone is sent."""
    order: Literal["synthetic_first", "mixed", "synthetic_last"] = "synthetic_first"
    """Place of the pass over generated images: before or after local training, or `mixed`: each step of local training
    has as many generated images as real ones."""
    schedule: Literal["interleaved", "first"] = "interleaved"
    """`interleaved`: every round trains classifiers and the generator; `first`: the first `generator_rounds` rounds
    train the generator alone, and later rounds the classifiers alone."""
    generator_rounds: Annotated[int, Field(ge=1)] = 5
    """Rounds of the generator with the schedule `first`."""

    def problems(self, config: Config) -> list[str]:
        """Returns a text if no round is left for the classifiers."""
        if self.schedule == "interleaved" or self.generator_rounds < config.run.rounds:
            return []
        return [
            f"generator_rounds: {self.generator_rounds} leaves none of {config.run.rounds} rounds for the classifiers. "
            "Set a smaller number, or more run.rounds."
        ]


class GeFL(Method[GeFLConfig]):
    """Uploads generators and classifiers; broadcasts their plain means, of classifiers within each backbone."""

    config_class = GeFLConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the generator, and starts all clients of a backbone from equal weights."""
        client.attach("generator", self._new_generator())
        if self.config.groups == "architecture":
            with self.task.shared_randomness("model"):
                model = self.task.new_classifier(client.backbone_name)
            client.classifier.load_state_dict(model.state_dict())

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the mean generator and the mean classifier of the client's backbone."""
        from fedvtc.learning.models.weights import load_weights

        for kind, module in (("generator", client.modules["generator"]), ("model", client.classifier)):
            if kind in broadcast.payload:
                load_weights(module, broadcast.payload[kind])

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains the classifier on generated and real images, then the generator; uploads what was trained.

        Generated images are those of the received generator, which knows the classes of all clients.
        """
        from fedvtc.learning.models.weights import weights_of

        trains_generator, trains_classifier = self._trained(client.round)
        counts_C = client.images.counts_C(self.task.num_classes)
        payload: dict[str, Arrays] = {"labels": {"count": counts_C.astype(np.int32)}}
        if trains_classifier:
            self._train_classifier(client, broadcast)
            if self.config.groups == "architecture":
                payload["model"] = weights_of(client.classifier)
        if trains_generator:
            config = self.config.generator
            train_autoencoder(client, epochs=config.epochs, batch_size=config.batch_size)
            payload["generator"] = weights_of(client.modules["generator"])
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages generators, and classifiers within each backbone; adds the classes that anyone holds.

        A mean without an upload keeps its last value.
        """
        generators, means = WeightedMean(), dict[str, WeightedMean]()
        held_C = np.array(state.get("held", np.zeros(self.task.num_classes, dtype=np.bool_)))
        for upload in uploads:
            held_C |= upload.payload["labels"]["count"].astype(np.int64) > 0
            if "generator" in upload.payload:
                generators.add(upload.payload["generator"], 1.0)
            if "model" in upload.payload:
                means.setdefault(upload.backbone, WeightedMean()).add(upload.payload["model"], 1.0)
        generator = state["generator"] if generators.is_empty else generators.value()
        models = {**state.get("models", {}), **{backbone: mean.value() for backbone, mean in means.items()}}
        payload: dict[str, Arrays] = {"labels": {"held": held_C}, "generator": generator}
        groups = {backbone: {"model": model} for backbone, model in sorted(models.items())}
        return {"generator": generator, "models": models, "held": held_C}, Broadcast(server.round, payload, groups)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Draws images by the mean generator."""
        import torch

        from fedvtc.learning.models.weights import load_weights

        if "generator" not in broadcast.payload:
            return None
        generator = self._new_generator().to(client.device)
        load_weights(generator, broadcast.payload["generator"])
        labels_N = _classes(broadcast).repeat_interleave(num_per_class).to(client.device)
        with client.randomness("samples"), torch.no_grad():
            return _draw(generator, labels_N), labels_N

    def largest_upload(self) -> Upload:
        """Builds an upload with a generator and the largest classifier."""
        from fedvtc.learning.models.weights import weights_of

        counts_C = np.ones(self.task.num_classes, dtype=np.int32)
        payload: dict[str, Arrays] = {"labels": {"count": counts_C}, "generator": weights_of(self._new_generator())}
        upload = replace(super().largest_upload(), payload=payload)
        return largest_model(upload, self.task) if self.config.groups == "architecture" else upload

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of the autoencoder's step, and of a step on real and as many generated images."""
        from fedvtc.learning.methods._step_bytes import autoencoder_bytes, classifier_bytes

        config, task = self.config.generator, self.task
        num_images = task.batch_size * (2 if self.config.order == "mixed" else 1)
        return {
            "method.generator.batch_size": autoencoder_bytes(self._new_generator(), task, config.batch_size),
            "training.batch_size": classifier_bytes(classifier, task, num_images, new_optimizer=False),
        }

    def _trained(self, round: int) -> tuple[bool, bool]:
        """Returns True for the generator, and True for the classifier, if the round trains it."""
        if self.config.schedule == "interleaved":
            return True, True
        return round <= self.config.generator_rounds, round > self.config.generator_rounds

    def _train_classifier(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Trains on CE of real images and of as many generated images, whose labels are uniform over held classes."""
        import torch

        order, generator = self.config.order, cast("ConditionalVAE", client.modules["generator"])
        if "generator" not in broadcast.payload:
            client.train()
            return
        classes_C = _classes(broadcast).to(client.device)

        @torch.no_grad()
        def drawn(num_images: int) -> tuple[Tensor, Tensor]:
            labels_B = classes_C[torch.randint(len(classes_C), (num_images,), device=client.device)]
            return client.counted("images", num_images, lambda: _draw(generator, labels_B)), labels_B

        def mixed(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels_B in batches:
                more, more_labels_B = drawn(len(images))
                yield torch.cat([images, more]), torch.cat([labels_B, more_labels_B])

        def synthetic() -> None:
            with client.phase("synthetic"):
                # One pass, as long as the first pass over real images.
                batches = (drawn(len(index_B)) for index_B in next(client.index_passes()))
                client.fit("classifier", batches, record_terms=False)

        if order == "mixed":
            with client.phase("train"):
                for batches in client.passes():
                    client.fit("classifier", mixed(batches))
            return
        steps = (synthetic, client.train) if order == "synthetic_first" else (client.train, synthetic)
        for step in steps:
            step()

    def _new_generator(self) -> ConditionalVAE:
        from fedvtc.learning.models.cvae import ConditionalVAE

        config, task = self.config.generator, self.task
        with task.shared_randomness("generator"):
            return ConditionalVAE(
                latent_size=config.latent_size,
                num_classes=task.num_classes,
                num_channels=task.num_channels,
                image_size=task.image_size,
                width=config.width,
                optimizer=config.optimizer,
            )


def _classes(broadcast: Broadcast) -> Tensor:
    """Returns the classes that any client holds."""
    import torch

    return torch.tensor(np.flatnonzero(broadcast.payload["labels"]["held"]))


def _draw(generator: ConditionalVAE, labels_B: Tensor) -> Tensor:
    """Draws images of labels, with latents of N(0, I)."""
    import torch

    latents_BL = torch.randn(len(labels_B), generator.decoder.latent_size, device=labels_B.device)
    images: Tensor = generator.decoder.eval()(latents_BL, labels_B)
    return images


METHOD = GeFL
