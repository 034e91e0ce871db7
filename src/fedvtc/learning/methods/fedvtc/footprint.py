"""The memory of FedVTC's own steps, for a plan."""

import torch
from torch import nn

from fedvtc.learning.methods.base import Task
from fedvtc.learning.methods.fedvtc.config import FedVTCConfig
from fedvtc.learning.methods.fedvtc.images import CHUNK, WINDOW_BYTES
from fedvtc.learning.models.classifier import ClassifierModule
from fedvtc.learning.models.live_bytes import peak_bytes


def working_bytes(
    config: FedVTCConfig, task: Task, decoder: nn.Module, classifier: ClassifierModule, samples_per_class: int
) -> dict[str, int]:
    """Returns the memory of each step, by the config key that makes the step smaller.

    Args:
        config: the method's config.
        task: sizes of the federation.
        decoder: the decoder of the generator, on the device `meta`.
        classifier: the client's model, on the device `meta`.
        samples_per_class: generated images of each class in a grid.
    """
    generator, finetune = config.generator, config.finetune
    image_bytes = 4 * task.num_channels * task.image_size**2

    def train_generator() -> None:
        """Reconstructs a batch, and matches the distributions of all classes."""
        num_matched = task.num_classes * generator.dm_samples if generator.gamma > 0 else 0
        features_BD = classifier.features(decoder(torch.empty(num_matched, task.feature_size)))
        images = decoder(torch.empty(generator.batch_size, task.feature_size))
        (features_BD.sum() + images.sum()).backward()

    def train_jointly() -> None:
        """Classifies a batch, and reconstructs the batch from its features."""
        shape = (generator.batch_size, task.num_channels, task.image_size, task.image_size)
        features_BD = classifier.train().features(torch.empty(shape))
        (classifier.head(features_BD).sum() + decoder(features_BD).sum()).backward()

    def train_classifier() -> None:
        shape = (finetune.batch_size, task.num_channels, task.image_size, task.image_size)
        classifier.train()(torch.empty(shape)).sum().backward()

    def decoding(num_images: int, copies: int) -> int:
        """Decodes chunks, joins them, and makes further copies of the images."""
        chunk = torch.empty(min(CHUNK, num_images), task.feature_size, device="meta")
        decoded = num_images * image_bytes
        with torch.no_grad():
            return max(decoded + peak_bytes(lambda: decoder(chunk)), copies * decoded)

    num_in_window = min(task.num_classes * finetune.images_per_class, WINDOW_BYTES // image_bytes + 1)
    # Resampling needs the images, the coordinates of their pixels, and the result; sharpening the images, their means,
    # and the difference of both before and after its scaling.
    copies = 5 if finetune.augment == "affine" else 4 if finetune.sharpening else 2
    num_in_pool = task.num_classes * finetune.pool
    keeps_pool = num_in_pool * image_bytes <= WINDOW_BYTES
    # Drawing needs the latents, the means of their Gaussians, and the noise.
    pool = num_in_pool * (3 * 4 * task.feature_size + keeps_pool * image_bytes)
    # The two moments of the optimizer, and the mean of the weights.
    moments = (3 if finetune.averaging else 2) * 4 * sum(weight.numel() for weight in classifier.parameters())
    window = decoding(num_in_window, copies)
    batch = num_in_window * image_bytes + peak_bytes(train_classifier)
    if generator.training == "joint":
        num_weights = sum(weight.numel() for module in (classifier, decoder) for weight in module.parameters())
        # The gradient of each image, and a clipped copy.
        gradients = 2 * 4 * num_weights * generator.batch_size if config.privacy.training_noise > 0 else 0
        training = {"method.generator.batch_size": peak_bytes(train_jointly) + gradients}
    else:
        classifier.eval().requires_grad_(False)
        training = {"method.generator.dm_samples": peak_bytes(train_generator)}
    return {
        **training,
        "method.finetune.batch_size": 0 if finetune.when == "never" else moments + pool + max(window, batch),
        "evaluate.samples_per_class": decoding(task.num_classes * samples_per_class, 3),
    }
