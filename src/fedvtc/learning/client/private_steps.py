"""DP-SGD: training steps with clipped gradients of single images, Gaussian noise, and Poisson batches.

Source: M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016 (arXiv 1607.00133).
PyTorch computes the gradients of single images, for any backbone without BatchNorm; Opacus clips and noises them.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedvtc.learning.exchange.privacy import PoissonSampling


def poisson_batches(sampling: PoissonSampling) -> Iterator[Tensor]:
    """Yields the indices of the images of each batch of a pass, drawn from PyTorch's global generator."""
    for _ in range(sampling.num_batches):
        yield torch.nonzero(torch.rand(sampling.num_images) < sampling.rate).flatten()


def private_optimizer(
    optimizer: torch.optim.Optimizer, sampling: PoissonSampling, *, noise_multiplier: float, clip: float
) -> torch.optim.Optimizer:
    """Wraps an optimizer: a step clips the gradients of `PrivateLoss`, and adds noise to their sum.

    The noise is drawn from PyTorch's global generator. The state of the given optimizer changes as in other training.

    Args:
        optimizer: the optimizer of the weights.
        sampling: the batches.
        noise_multiplier: standard deviation of the noise over `clip`.
        clip: largest norm of an image's gradient.
    """
    # Imported here, because the import takes seconds and Opacus is an optional dependency.
    from opacus.optimizers import DPOptimizer

    private: torch.optim.Optimizer = DPOptimizer(
        optimizer,
        noise_multiplier=noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=sampling.rate * sampling.num_images,
    )
    return private


class PrivateLoss:
    """A loss that leaves the gradient of each image of a batch on the weights, for `private_optimizer`.

    Args:
        module: the module that is trained.
        terms: terms of the loss as in `client.fit`, which must be means over the images of a batch.
    """

    def __init__(self, module: nn.Module, terms: Callable[..., Mapping[str, Tensor]]) -> None:
        self._image = _ImageLoss(module, terms)
        self._weights = dict(self._image.named_parameters())

        def loss(weights: dict[str, Tensor], *image: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            found: Mapping[str, Tensor] = functional_call(self._image, weights, image)
            return found["loss"], found

        self._gradients: Any = grad(loss, has_aux=True)

    def __call__(self, *batch: Tensor) -> Mapping[str, Tensor]:
        """Returns the means of the terms; a batch may be empty."""
        if len(batch[0]):
            values = {name: weight.detach() for name, weight in self._weights.items()}
            in_dims = (None, *(0 for _ in batch))
            with warnings.catch_warnings():
                # Attention is computed image by image.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                gradients, terms = vmap(self._gradients, in_dims=in_dims, randomness="different")(values, *batch)
            means = {name: values_B.mean() for name, values_B in terms.items()}
        else:
            # A step of noise alone: without the step, the messages would tell that the batch was empty.
            gradients = {name: weight.new_zeros((0, *weight.shape)) for name, weight in self._weights.items()}
            means = {"loss": next(iter(self._weights.values())).new_zeros(())}
        for name, weight in self._weights.items():
            weight.grad_sample = gradients[name].detach()  # type: ignore[attr-defined]
            weight.summed_grad = None  # type: ignore[attr-defined]
        # The loop of training calls backward, which here has nothing left to compute.
        return {**means, "loss": means["loss"].detach().requires_grad_()}


class _ImageLoss(nn.Module):
    """The terms of the loss of one image, as a module whose weights PyTorch can replace."""

    def __init__(self, module: nn.Module, terms: Callable[..., Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.module, self._terms = module, terms

    def forward(self, *image: Tensor) -> Mapping[str, Tensor]:
        return self._terms(*(part[None] for part in image))
