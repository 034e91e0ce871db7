"""The exponential mean of a module's weights over the steps of a training."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn

Batch = TypeVar("Batch")


class MeanWeights:
    """Averages the weights of a module after each step (Polyak and Juditsky 1992).

    mean <- d * mean + (1 - d) * weights after step n, with d = min(decay, n / (n + 9)). The smaller d of the first
    steps makes the weights before training count for next to nothing. (Start: our choice.)

    Args:
        module: the module that trains. The statistics in its buffers are averaged too, counts are not.
        decay: decay of the mean, from 0 to below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self._weights = [weight.detach() for weight in (*module.parameters(), *buffers)]
        self._means = [weight.clone() for weight in self._weights]
        self._decay, self._num_steps = decay, 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields the batches of the steps; a step is over when the next batch is asked for."""
        for batch in batches:
            yield batch
            self._add()

    def _add(self) -> None:
        self._num_steps += 1
        share = 1.0 - min(self._decay, self._num_steps / (self._num_steps + 9))
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean.lerp_(weight, share)

    def replace_weights(self) -> None:
        """Puts the mean in the place of the weights."""
        with torch.no_grad():
            for mean, weight in zip(self._means, self._weights, strict=True):
                weight.copy_(mean)
