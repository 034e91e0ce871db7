"""The training steps that FedVTC adds to a client: generator training, and fine-tuning on generated images.

Shapes: N images, W images of a window, B images of a batch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.client.private_steps import PrivateLoss, poisson_batches, private_optimizer
from fedvtc.learning.data.module import epoch_batches
from fedvtc.learning.data.passes import batch_sizes
from fedvtc.learning.exchange.privacy import PoissonSampling, PrivacyConfig
from fedvtc.learning.methods.fedvtc.config import GeneratorConfig
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget, VTCModule, reconstruction_error
from fedvtc.learning.methods.fedvtc.images import WINDOW_BYTES, LazyImages
from fedvtc.learning.methods.fedvtc.joint import JointModule
from fedvtc.learning.methods.fedvtc.mean_weights import MeanWeights
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
                (images, labels_N[index_B], features_ND[index_B])
                for images, index_B in client.images.in_batches(client.index_batches(batch_size))
            )
            client.fit("generator", batches)


def train_jointly(client: FederatedClient, joint: JointModule, config: GeneratorConfig, privacy: PrivacyConfig) -> None:
    """Trains the classifier and the generator together, by the optimizer that the generator was attached with."""
    batch_size = config.batch_size
    with client.phase("train"):
        joint.train()
        if privacy.training_noise == 0:
            for _ in range(config.epochs):
                client.fit("generator", client.batches(batch_size), loss=joint.loss_terms)
            return
        sampling, noise = PoissonSampling(client.num_images, batch_size), privacy.training_noise
        optimizer = client.optimizer("generator")
        assert optimizer is not None
        private = private_optimizer(optimizer, sampling, noise_multiplier=noise, clip=privacy.training_clip)
        loss = PrivateLoss(joint, joint.loss_terms)
        for _ in range(config.epochs):
            batches = client.images.batches(poisson_batches(sampling))
            client.fit("generator", batches, loss=loss, optimizer=private)
        private.zero_grad(set_to_none=True)  # Frees the gradients of the last images.


def train_for_closing(client: FederatedClient, config: GeneratorConfig) -> None:
    """Trains the generator for the `closing_epochs` to reconstruct the client's images, with the classifier frozen.

    The features no longer change, and the learning rate falls to 0, so the images become sharper than those of the last
    round.
    """
    if not config.closing_epochs:
        return
    generator = generator_of(client)
    stepper = build_optimizer(generator.decoder.parameters(), config.optimizer)

    def reconstruction(images: Tensor, features_BD: Tensor) -> Tensor:
        return reconstruction_error(generator(features_BD + config.noise * torch.randn_like(features_BD)), images)

    with client.phase("generator"), _frozen(client.classifier):
        features_ND = client.features()
        num_batches = len(batch_sizes(client.num_images, config.batch_size))
        scheduler = CosineAnnealingLR(stepper, T_max=config.closing_epochs * num_batches)
        for _ in range(config.closing_epochs):
            index_batches = client.index_batches(config.batch_size)
            batches = ((images, features_ND[index_B]) for images, index_B in client.images.in_batches(index_batches))
            client.fit("generator", _scheduled(batches, scheduler), loss=reconstruction, optimizer=stepper)


def finetune(
    client: FederatedClient,
    draw_pass: Callable[[], LazyImages],
    *,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    schedule: Literal["constant", "cosine"] = "constant",
    averaging: float = 0.0,
) -> None:
    """Trains the whole classifier by cross-entropy on drawn images.

    Args:
        client: the client whose classifier is trained.
        draw_pass: draws the images of one pass, the same number for each.
        epochs: passes.
        batch_size: images per step.
        optimizer: settings of a new optimizer, dropped after the last step.
        schedule: learning rate over the steps; `cosine` falls to 0.
        averaging: decay of the mean of the weights over the steps, which the classifier ends with; 0 keeps the weights
            of the last step.
    """
    stepper = build_optimizer(client.classifier.parameters(), optimizer)
    scheduler: CosineAnnealingLR | None = None
    mean = MeanWeights(client.classifier, averaging) if averaging else None

    def cross_entropy(images: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(client.classifier(images), labels_B)

    with client.phase("finetune"):
        for _ in range(epochs):
            drawn = draw_pass()
            index_batches = list(epoch_batches(len(drawn), batch_size, torch.default_generator))
            if schedule == "cosine" and scheduler is None:
                scheduler = CosineAnnealingLR(stepper, T_max=epochs * len(index_batches))
            batches = _scheduled(_windows(client, drawn, index_batches), scheduler)
            if mean is not None:
                batches = mean.watch(batches)
            client.fit("classifier", batches, loss=cross_entropy, optimizer=stepper)
        if mean is not None:
            mean.replace_weights()


def _scheduled(
    batches: Iterator[tuple[Tensor, Tensor]], scheduler: CosineAnnealingLR | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches; changes the learning rate after each step."""
    for batch in batches:
        yield batch
        if scheduler is not None:
            scheduler.step()


def _windows(
    client: FederatedClient, epoch: LazyImages, index_batches: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches; makes the images of as many batches at once as fit `WINDOW_BYTES`."""
    num_images, start = max(1, WINDOW_BYTES // client.images.image_bytes), 0
    while start < len(index_batches):
        sizes = itertools.accumulate(map(len, index_batches[start:]))
        num_batches = max(1, sum(size <= num_images for size in sizes))
        window = index_batches[start : start + num_batches]
        start += num_batches
        # Ascending, so that an epoch in one window has the same chunks of latents, and so the same bits, in any order.
        index_W, place_W = torch.cat(list(window)).sort()
        images = client.counted("images", len(index_W), partial(epoch.images, index_W.to(epoch.labels_N.device)))
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
