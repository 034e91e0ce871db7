"""The memory of training steps that several methods take, for a plan; all modules are on PyTorch's device `meta`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvtc.learning.methods.base import Task
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.cvae import ConditionalVAE


def classifier_bytes(classifier: ClassifierModule, task: Task, batch_size: int, *, new_optimizer: bool) -> int:
    """Returns the memory of a training step of a client's model.

    Args:
        classifier: the client's model.
        task: sizes of the federation.
        batch_size: images in the step.
        new_optimizer: True adds the two moments of an optimizer beside the client's own.
    """
    import torch

    from fedvtc.learning.models.live_bytes import peak_bytes

    shape = (batch_size, task.num_channels, task.image_size, task.image_size)

    def train() -> None:
        classifier.train()(torch.empty(shape)).sum().backward()

    moments = 2 * 4 * sum(weight.numel() for weight in classifier.parameters()) if new_optimizer else 0
    step = peak_bytes(train)
    classifier.zero_grad()
    return moments + step


def autoencoder_bytes(autoencoder: ConditionalVAE, task: Task, batch_size: int) -> int:
    """Returns the memory of a training step of an autoencoder, which moves to the device `meta`."""
    import torch

    from fedvtc.learning.models.live_bytes import peak_bytes

    autoencoder.to("meta").train()
    shape = (batch_size, task.num_channels, task.image_size, task.image_size)

    def train() -> None:
        batch = torch.empty(shape), torch.zeros(batch_size, dtype=torch.int64)
        autoencoder.training_step(batch, 0)["loss"].backward()

    return peak_bytes(train)
