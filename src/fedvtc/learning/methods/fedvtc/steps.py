"""The training steps that FedVTC adds to a client: generator training, and fine-tuning on generated images.

Shapes: N images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data.module import epoch_batches
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget, VTCModule
from fedvtc.learning.models.optimizers import build_optimizer


def generator_of(client: FederatedClient) -> VTCModule:
    """Returns the client's generator."""
    generator = client.modules["generator"]
    assert isinstance(generator, VTCModule)
    return generator


def train_generator(client: FederatedClient, target: GeneratorTarget, *, epochs: int, batch_size: int) -> None:
    """Trains the generator against its target, with the classifier frozen in eval mode.

    Features are computed once, because the frozen classifier does not change.
    """
    generator_of(client).set_target(target)
    with client.phase("generator"), _frozen(client.classifier):
        features_ND, labels_N = client.features(), client.images.labels_N
        for _ in range(epochs):
            batches = (
                (client.images.inputs(index_B), labels_N[index_B], features_ND[index_B])
                for index_B in client.index_batches(batch_size)
            )
            client.fit("generator", batches)


def finetune(
    client: FederatedClient,
    draw_epoch: Callable[[], tuple[Tensor, Tensor]],
    *,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    mix_real: bool,
) -> None:
    """Trains the whole classifier by cross-entropy on drawn images.

    Args:
        client: the client whose classifier is trained.
        draw_epoch: draws the images (N, channels, side, side) and labels of one epoch.
        epochs: passes, each over newly drawn images.
        batch_size: images per step.
        optimizer: settings of a new optimizer, dropped after the last step.
        mix_real: True shuffles the client's own images among the drawn images.
    """
    stepper = build_optimizer(client.classifier.parameters(), optimizer)

    def cross_entropy(images: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(client.classifier(images), labels_B)

    with client.phase("finetune"):
        for _ in range(epochs):
            images, labels_N = draw_epoch()
            if mix_real:
                images = torch.cat([images, client.images.augmented(client.images.inputs())])
                labels_N = torch.cat([labels_N, client.images.labels_N])
            batches = (
                (images[index_B], labels_N[index_B])
                for index_B in epoch_batches(len(labels_N), batch_size, torch.default_generator)
            )
            client.fit("classifier", batches, loss=cross_entropy, optimizer=stepper)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.eval()
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
