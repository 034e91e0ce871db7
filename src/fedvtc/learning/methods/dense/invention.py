"""The server's half of DENSE: images on which the clients' models agree, and a model that the images confuse.

Shapes: K clients, C classes, B images of a batch, L entries of a latent, N images of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.learning.data.module import augment
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods.base import Task
from fedvtc.learning.models.decoder import build_decoder
from fedvtc.learning.models.losses import distillation
from fedvtc.learning.models.weights import load_weights

if TYPE_CHECKING:
    from fedvtc.learning.client.loop import Loss
    from fedvtc.learning.methods.dense.config import DENSEConfig, GenerationConfig
    from fedvtc.learning.server import Server

Teacher = Callable[[Tensor, Tensor], Tensor]
"""Returns the answers of the clients' models to images of given classes, as logits (B, C)."""
Pool = list[tuple[Tensor, Tensor]]
"""Batches of images and their answers."""


def teacher_of(task: Task, uploads: Iterable[Upload]) -> Teacher:
    """Returns a function from images and their classes to the answers of the clients' models, as logits (B, C)."""
    models, counts = [], []
    for upload in uploads:
        model = task.new_classifier(upload.backbone).eval().requires_grad_(False)
        load_weights(model, upload.payload["model"])
        models.append(model)
        labels = upload.payload.get("labels", {"count": np.ones(task.num_classes)})
        counts.append(torch.tensor(labels["count"], dtype=torch.float32))
    weight_KC = torch.stack(counts)
    # A class that nobody holds has the plain mean.
    weight_KC = torch.where(weight_KC.sum(dim=0) > 0, weight_KC, torch.ones_like(weight_KC))
    weight_KC = weight_KC / weight_KC.sum(dim=0)

    def answers(images: Tensor, labels_B: Tensor) -> Tensor:
        logits_KBC = torch.stack([model(images) for model in models])
        return (weight_KC[:, labels_B, None] * logits_KBC).sum(dim=0)

    return answers


def blank(config: GenerationConfig, task: Task) -> Pool:
    """Returns as many images and answers as the server invents, all of them zeros."""
    num_images, side = config.batches * config.batch_size, task.image_size
    images = torch.zeros(num_images, task.num_channels, side, side)
    return [(images, torch.zeros(num_images, task.num_classes))]


def invented(config: DENSEConfig, task: Task, teacher: Teacher, server: Server) -> Pool:
    """Invents all batches; after each, the server's model learns the answers to all images so far."""
    generation = config.generation
    pool: Pool = []
    with server.phase("images"):
        student = task.new_classifier(task.backbones[0])
        stepper = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
        for _ in range(generation.batches):
            labels_B = torch.randint(task.num_classes, (generation.batch_size,))
            student.eval().requires_grad_(False)
            images = _batch(generation, task, teacher, student, labels_B, server)
            student.requires_grad_(True)
            with torch.no_grad():
                answer_BC = server.counted("answers", len(images), partial(teacher, images, labels_B))
            pool.append((images, answer_BC))
            order = (pool[index] for index in torch.randperm(len(pool)).tolist())
            server.fit(student, order, answer_loss(student, config.temperature), stepper)
    return pool


def _batch(
    config: GenerationConfig, task: Task, teacher: Teacher, student: nn.Module, labels_B: Tensor, server: Server
) -> Tensor:
    """Trains a new generator and its latents together; returns the images of the step with the lowest loss."""
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


def answer_loss(model: nn.Module, temperature: float) -> Loss:
    """Returns the loss T^2 KL(softmax(a / T) || softmax(f / T)) of a model f on images and their answers a."""

    def loss(images: Tensor, answer_BC: Tensor) -> Tensor:
        return distillation(answer_BC, model(images), temperature)

    return loss


def invention_loss(answer_BC: Tensor, student_BC: Tensor, labels_B: Tensor, adversarial_weight: float) -> Tensor:
    """Returns CE(a, y) - lambda mean_i [argmax s_i != argmax a_i] KL(softmax a_i || softmax s_i).

    Args:
        answer_BC: logits a of the clients' models.
        student_BC: logits s of the server's model.
        labels_B: classes that the images are invented for.
        adversarial_weight: lambda.
    """
    logs_BC = student_BC.log_softmax(dim=1)
    terms_BC = functional.kl_div(logs_BC, answer_BC.log_softmax(dim=1), reduction="none", log_target=True)
    differ_B = student_BC.argmax(dim=1) != answer_BC.argmax(dim=1)
    return functional.cross_entropy(answer_BC, labels_B) - adversarial_weight * (differ_B * terms_BC.sum(dim=1)).mean()
