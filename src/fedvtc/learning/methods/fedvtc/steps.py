"""The training steps that FedVTC adds to a client: generator training, and fine-tuning on generated images.

Shapes: N images, W images of a window, B images of a batch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data.module import epoch_batches
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget, VTCModule
from fedvtc.learning.methods.fedvtc.images import LazyImages
from fedvtc.learning.models.optimizers import build_optimizer

WINDOW_BYTES = 2**26
"""Largest size of the float images that fine-tuning makes at once."""


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
    draw_epoch: Callable[[], LazyImages],
    *,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    mix_real: bool,
) -> None:
    """Trains the whole classifier by cross-entropy on drawn images.

    Args:
        client: the client whose classifier is trained.
        draw_epoch: draws the images of one epoch.
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
            epoch = draw_epoch()
            if mix_real:
                epoch = epoch.then(LazyImages(client.images.labels_N, client.images.draw_augmented()))
            index_batches = list(epoch_batches(len(epoch), batch_size, torch.default_generator))
            batches = _windows(epoch, index_batches, max(1, WINDOW_BYTES // client.images.image_bytes))
            client.fit("classifier", batches, loss=cross_entropy, optimizer=stepper)


def _windows(epoch: LazyImages, index_batches: Sequence[Tensor], num_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches; makes the images of as many batches at once as have at most `num_images` images."""
    start = 0
    while start < len(index_batches):
        sizes = itertools.accumulate(map(len, index_batches[start:]))
        num_batches = max(1, sum(size <= num_images for size in sizes))
        window = index_batches[start : start + num_batches]
        start += num_batches
        # Ascending, so that an epoch in one window has the same chunks of latents, and so the same bits, in any order.
        index_W, place_W = torch.cat(list(window)).sort()
        images = epoch.images(index_W.to(epoch.labels_N.device))
        for index_B, place_B in zip(window, place_W.argsort().split(list(map(len, window))), strict=True):
            yield images[place_B], epoch.labels_N[index_B]
        del images


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.eval()
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
