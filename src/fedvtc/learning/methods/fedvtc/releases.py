"""The statistics that a client of FedVTC sends, with noise if configured, and the privacy loss of all its messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedvtc.learning.exchange.accounting import GaussianUse, PrivacyLoss, epsilon
from fedvtc.learning.exchange.privacy import Mechanism, PoissonSampling
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form
from fedvtc.learning.methods.base import Task
from fedvtc.learning.methods.fedvtc.config import FedVTCConfig
from fedvtc.learning.seeding import numpy_generator

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient


def statistics_to_send(
    client: FederatedClient, config: FedVTCConfig, task: Task, form: Form, purpose: str
) -> FeatureStatistics:
    """Measures statistics, with the noise of `method.privacy` if any; the purpose keys the noise."""
    if config.privacy.noise_multiplier == 0:
        return client.statistics(form)
    mechanism = Mechanism.of(config.privacy, num_classes=task.num_classes, feature_size=task.feature_size)
    rng = numpy_generator(task.seed, round=client.round, client=client.id, purpose=purpose)
    features_ND, labels_N = client.features().cpu().numpy(), client.images.labels_N.cpu().numpy()
    return mechanism.release(features_ND, labels_N, form, rng.standard_normal)


def privacy_loss(
    config: FedVTCConfig, num_images: Iterable[int], *, num_rounds: int, closes: bool
) -> PrivacyLoss | None:
    """Returns the largest privacy loss of clients that take part in every round; None without noise.

    Args:
        config: the method's config.
        num_images: training images of each client.
        num_rounds: rounds so far.
        closes: True if the closing exchange counts too.
    """
    privacy, generator = config.privacy, config.generator
    if not privacy.is_on:
        return None
    statistics = GaussianUse(privacy.noise_multiplier, 1.0, num_rounds + closes)
    uses = [[statistics]]
    if privacy.training_noise > 0:
        uses = []
        for num in set(num_images):
            sampling = PoissonSampling(num, generator.batch_size)
            num_steps = num_rounds * generator.epochs * sampling.num_batches
            uses.append([statistics, GaussianUse(privacy.training_noise, sampling.rate, num_steps)])
    largest = max(epsilon(client, privacy.delta) for client in uses)
    return PrivacyLoss(largest, privacy.delta, covers_training=privacy.training_noise > 0)
