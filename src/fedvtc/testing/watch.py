"""Watches every training step of a method: where gradients go, and what a method sends without its training."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from fedvtc.learning.client.loop import Learner

_Fit = Callable[..., dict[str, float]]


class Watch:
    """Replaces `Learner.fit` in a block.

    Args:
        modules: returns the modules of all clients, by a name for messages.
        is_idle: True takes every training step back, so that a module leaves `fit` with the weights it had before.

    Attributes:
        num_fits: calls of `fit` so far.
    """

    def __init__(self, modules: Callable[[], Mapping[str, nn.Module]], *, is_idle: bool = False) -> None:
        self._modules, self._is_idle = modules, is_idle
        self.num_fits = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watches the training steps in the block.

        Raises:
            AssertionError: a step changes no weight, or sends gradients into a module that does not train.
        """
        original: _Fit = Learner.fit

        def fit(learner: Learner, batches: Any, loss: Any = None, optimizer: Any = None, **more: Any) -> Any:
            self.num_fits += 1
            return self._fit(partial(original, **more), learner, batches, loss, optimizer)

        Learner.fit = fit  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            Learner.fit = original  # type: ignore[method-assign]

    def _fit(self, original: _Fit, learner: Learner, batches: Any, loss: Any, optimizer: Any) -> dict[str, float]:
        used = optimizer or learner.optimizer
        trained = [weight for group in used.param_groups for weight in group["params"]] if used else []
        modules = self._modules()
        for module in modules.values():
            module.zero_grad()
        before = copy.deepcopy([weight.data for weight in trained])
        terms = original(learner, batches, loss, optimizer)
        name = type(learner.module).__name__
        for other, module in modules.items():
            assert not _has_gradient(module, [*learner.module.parameters(), *trained]), (
                f"the training of {name} sends gradients into {other}: detach the output of that module"
            )
        assert not terms or not _all_equal(before, trained), f"the training of {name} changes none of its weights"
        if self._is_idle:
            for old, weight in zip(before, trained, strict=True):
                weight.data.copy_(old)
        return terms


def _has_gradient(module: nn.Module, left_out: Iterable[nn.Parameter]) -> bool:
    own = set(map(id, left_out))
    return any(
        weight.grad is not None and bool(weight.grad.any()) for weight in module.parameters() if id(weight) not in own
    )


def _all_equal(before: Sequence[torch.Tensor], weights: Sequence[nn.Parameter]) -> bool:
    return all(torch.equal(old, weight.data) for old, weight in zip(before, weights, strict=True))
