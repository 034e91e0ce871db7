"""DENSE: the server invents images on which the clients' models agree, and every client learns their mean answer.

Source: J. Zhang et al., "DENSE: Data-Free One-Shot Federated Learning", NeurIPS 2022 (arXiv 2112.12371). The paper
distils into one model on the server; here every client's model learns from the images too. No backbone has BatchNorm,
so the paper's term on running statistics is absent, which makes weaker images.

Shapes: K clients, C classes, B images of a batch, L entries of a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig, OptimizerConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.methods.base import ServerState
from fedvtc.learning.methods.fedavg import largest_model
from fedvtc.learning.methods.local import LocalConfig, LocalRounds

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.loop import Loss
    from fedvtc.learning.data.generated import GeneratedImages
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.server import Server

    Teacher = Callable[[Tensor, Tensor], Tensor]
    Pool = list[tuple[Tensor, Tensor]]


@section
class GenerationConfig:
    """The images that the server invents, and the model that it distils beside them."""

    batches: Annotated[int, Field(ge=1)] = 200
    """Batches of images; each has a new generator."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images of a batch."""
    steps: Annotated[int, Field(ge=1)] = 30
    """Steps of a generator and its latents, by Adam with a rate of 0.001 and momenta of 0.5 and 0.999."""
    latent_size: Annotated[int, Field(ge=1)] = 256
    """Entries of a latent."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the generator's last feature map; coarser maps have more channels."""
    adversarial_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence between the clients' models and the server's, where they disagree."""


@section
class DistillationConfig:
    """The training of the clients' models on the images."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the images."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the client's model, new for this training."""


@section
class DENSEConfig(MethodConfig):
    """The keys of DENSE."""

    name: str = "dense"
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """The images that the server invents, and the model that it distils beside them."""
    temperature: Annotated[float, Field(gt=0)] = 20.0
    """Temperature of the answers in distillation."""
    ensemble: Literal["mean", "label_weighted"] = "mean"
    """Answer of the clients' models to an image. `mean`: of all clients; `label_weighted`: a client counts by its share
    of the images of the class that the image is invented for (our addition)."""
    finetune: DistillationConfig = field(default_factory=DistillationConfig)
    """The training of the clients' models on the images."""

    def of_rounds(self) -> MethodConfig:
        """Returns the keys of Local, whose rounds are equal."""
        return LocalConfig()


class DENSE(LocalRounds[DENSEConfig]):
    """Trains as local; then uploads models once, and broadcasts invented images with the models' answers."""

    config_class = DENSEConfig

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Uploads the whole model, and for `label_weighted` the images of each class."""
        from fedvtc.learning.models.weights import weights_of

        counts_C = client.images.counts_C(self.task.num_classes)
        return client.upload({"model": weights_of(client.classifier), **self._labels(counts_C)})

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Invents batches of images; distils a model of the first backbone, which the next images shall confuse."""
        import torch

        from fedvtc.learning.data.generated import GeneratedImages

        pool = self._blank() if server.is_idle else self._invented(self._teacher(uploads), server)
        logits_NC = torch.cat([logits for _, logits in pool])
        invented = GeneratedImages.of([images for images, _ in pool], [logits_NC.argmax(dim=1)]).to_arrays()
        return Broadcast(server.round, {"images": {"pixels": invented["pixels"], "logits": logits_NC.numpy()}})

    @property
    def has_finish(self) -> bool:
        """True: every client learns from the images."""
        return True

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Trains the client's model on T^2 KL(softmax(a / T) || softmax(f / T)), a the mean answer."""
        from fedvtc.learning.models.optimizers import build_optimizer

        stepper = build_optimizer(client.classifier.parameters(), self.config.finetune.optimizer)
        with client.phase("finetune"):
            for _ in range(self.config.finetune.epochs):
                batches = self._batches(client, broadcast)
                loss = self._distillation(client.classifier)
                client.fit("classifier", batches, loss=loss, optimizer=stepper, record_terms=False)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Returns the first images of each class in the answers; None before the images are invented."""
        if "images" not in broadcast.payload:
            return None
        return _read(broadcast).first(num_per_class)

    def largest_closing(self) -> Upload:
        """Builds the closing upload of the largest model."""
        counts_C = np.ones(self.task.num_classes, dtype=np.int64)
        return largest_model(replace(super().largest_closing(), payload=self._labels(counts_C)), self.task)

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of a step on the images, which a client keeps as pixels and answers."""
        from fedvtc.learning.methods._step_bytes import classifier_bytes

        generation, task = self.config.generation, self.task
        num_bytes = task.num_channels * task.image_size**2 + 4 * task.num_classes
        step = classifier_bytes(classifier, task, self.config.finetune.batch_size, new_optimizer=True)
        return {"method.finetune.batch_size": generation.batches * generation.batch_size * num_bytes + step}

    def _labels(self, counts_C: NDArray[np.int64]) -> dict[str, Arrays]:
        is_sent = self.config.ensemble == "label_weighted"
        return {"labels": {"count": counts_C.astype(np.int32)}} if is_sent else {}

    def _teacher(self, uploads: Iterable[Upload]) -> Teacher:
        """Returns a function from images and their classes to the answers of the clients' models, as logits (B, C)."""
        import torch

        from fedvtc.learning.models.weights import load_weights

        models, counts = [], []
        for upload in uploads:
            model = self.task.new_classifier(upload.backbone).eval().requires_grad_(False)
            load_weights(model, upload.payload["model"])
            models.append(model)
            labels = upload.payload.get("labels", {"count": np.ones(self.task.num_classes)})
            counts.append(torch.tensor(labels["count"], dtype=torch.float32))
        weight_KC = torch.stack(counts)
        # A class that nobody holds has the plain mean.
        weight_KC = torch.where(weight_KC.sum(dim=0) > 0, weight_KC, torch.ones_like(weight_KC))
        weight_KC = weight_KC / weight_KC.sum(dim=0)

        def answers(images: Tensor, labels_B: Tensor) -> Tensor:
            logits_KBC = torch.stack([model(images) for model in models])
            return (weight_KC[:, labels_B, None] * logits_KBC).sum(dim=0)

        return answers

    def _invented(self, teacher: Teacher, server: Server) -> Pool:
        """Invents all batches; after each, the server's model learns the answers to all images so far."""
        import torch

        config = self.config.generation
        pool: Pool = []
        with server.phase("images"):
            student = self.task.new_classifier(self.task.backbones[0])
            stepper = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
            for _ in range(config.batches):
                labels_B = torch.randint(self.task.num_classes, (config.batch_size,))
                student.eval().requires_grad_(False)
                images = self._batch(teacher, student, labels_B, server)
                student.requires_grad_(True)
                with torch.no_grad():
                    answer_BC = server.counted("answers", len(images), partial(teacher, images, labels_B))
                pool.append((images, answer_BC))
                order = (pool[index] for index in torch.randperm(len(pool)).tolist())
                server.fit(student, order, self._distillation(student), stepper)
        return pool

    def _batch(self, teacher: Teacher, student: nn.Module, labels_B: Tensor, server: Server) -> Tensor:
        """Trains a new generator and its latents together; returns the images of the step with the lowest loss."""
        import torch
        from torch import nn

        from fedvtc.learning.data.module import augment
        from fedvtc.learning.models.decoder import build_decoder

        config, task = self.config.generation, self.task
        decoder = build_decoder(config.latent_size, task.num_channels, task.image_size, config.width)
        latents_BL = nn.Parameter(torch.randn(config.batch_size, config.latent_size))
        stepper = torch.optim.Adam([*decoder.parameters(), latents_BL], lr=1e-3, betas=(0.5, 0.999))
        best, lowest = torch.empty(0), float("inf")

        def loss(labels_B: Tensor) -> Tensor:
            nonlocal best, lowest
            images = decoder(latents_BL)
            changed = augment(images, "shift_flip", torch.default_generator)
            value = invention_loss(teacher(changed, labels_B), student(changed), labels_B, config.adversarial_weight)
            if value.item() < lowest:
                best, lowest = images.detach(), value.item()
            return value

        server.fit(decoder, [(labels_B,)] * config.steps, loss, stepper)
        return best

    def _blank(self) -> Pool:
        """Returns as many images and answers as the server invents, all of them zeros."""
        import torch

        num_images, side = self.config.generation.batches * self.config.generation.batch_size, self.task.image_size
        images = torch.zeros(num_images, self.task.num_channels, side, side)
        return [(images, torch.zeros(num_images, self.task.num_classes))]

    def _distillation(self, model: nn.Module) -> Loss:
        from fedvtc.learning.models.losses import distillation

        def loss(images: Tensor, answer_BC: Tensor) -> Tensor:
            return distillation(answer_BC, model(images), self.config.temperature)

        return loss

    def _batches(self, client: FederatedClient, broadcast: Broadcast) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields one shuffled epoch of images and answers."""
        import torch

        from fedvtc.learning.data.module import epoch_batches, to_tensor

        invented, logits_NC = _read(broadcast), to_tensor(broadcast.payload["images"]["logits"])
        for index_B in epoch_batches(len(invented), self.config.finetune.batch_size, torch.default_generator):
            yield invented.batch(index_B, client.device)[0], logits_NC[index_B].to(client.device)


def invention_loss(answer_BC: Tensor, student_BC: Tensor, labels_B: Tensor, adversarial_weight: float) -> Tensor:
    """Returns CE(a, y) - lambda mean_i [argmax s_i != argmax a_i] KL(softmax a_i || softmax s_i).

    Args:
        answer_BC: logits a of the clients' models.
        student_BC: logits s of the server's model.
        labels_B: classes that the images are invented for.
        adversarial_weight: lambda.
    """
    from torch.nn import functional

    logs_BC = student_BC.log_softmax(dim=1)
    terms_BC = functional.kl_div(logs_BC, answer_BC.log_softmax(dim=1), reduction="none", log_target=True)
    differ_B = student_BC.argmax(dim=1) != answer_BC.argmax(dim=1)
    return functional.cross_entropy(answer_BC, labels_B) - adversarial_weight * (differ_B * terms_BC.sum(dim=1)).mean()


def _read(broadcast: Broadcast) -> GeneratedImages:
    from fedvtc.learning.data.generated import GeneratedImages

    arrays = broadcast.payload["images"]
    return GeneratedImages.from_arrays({"pixels": arrays["pixels"], "labels": arrays["logits"].argmax(axis=1)})


METHOD = DENSE
