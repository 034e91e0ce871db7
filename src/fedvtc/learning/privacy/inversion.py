"""Prototype inversion: an image whose features are a client's prototype, found by gradient steps on its pixels.

The attacker knows the client's backbone and the mean features of each of the client's classes, such as a server that
the client sends prototypes to, with a copy of the backbone. Source of the attack: A. Mahendran and A. Vedaldi,
"Understanding Deep Image Representations by Inverting Them", CVPR 2015.

Shapes: K classes, D features.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.data.generated import to_pixels

STEPS = 300
LEARNING_RATE = 0.05
SMOOTHNESS = 0.01
"""Weight of the total variation, the mean difference of neighbouring pixels, which natural images keep small."""


def invert(
    features: Callable[[Tensor], Tensor], targets_KD: Tensor, shape: tuple[int, int, int], generator: torch.Generator
) -> NDArray[np.uint8]:
    """Returns an image (K, channels, side, side) of each target, as pixels from 0 to 255.

    Args:
        features: maps images in [-1, 1] to features; does not change.
        targets_KD: features that the images shall have.
        shape: channels and sides of an image.
        generator: draws the first images.
    """
    start = 0.1 * torch.randn(len(targets_KD), *shape, generator=generator)
    # Unbounded numbers whose tanh are the pixels.
    free = start.to(targets_KD.device).requires_grad_()
    stepper = torch.optim.Adam([free], lr=LEARNING_RATE)
    for _ in range(STEPS):
        images = free.tanh()
        distance = (features(images) - targets_KD).square().mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(distance + SMOOTHNESS * _variation(images), free)
        free.grad = gradient
        stepper.step()
    return to_pixels(free.detach().tanh())


def _variation(images: Tensor) -> Tensor:
    """Returns the mean absolute difference of neighbouring pixels of each image, summed over images."""
    across = (images[..., 1:] - images[..., :-1]).abs().flatten(1).mean(dim=1)
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).mean(dim=1)
    return (across + down).sum()
