"""Counts the memory of tensors in a step, on PyTorch's device `meta`, where tensors have a shape and no content."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(step: Callable[[], Any]) -> int:
    """Runs a step and returns the largest size of all tensors of the step that exist at the same time.

    Counts tensors that the step makes, hence also activations that wait for the backward pass and gradients. Working
    memory inside of PyTorch's kernels is not counted.

    Args:
        step: works on modules and tensors on the device `meta`, which are not counted themselves.
    """
    counter = _LiveBytes()
    with torch.device("meta"), counter:
        step()
    return counter.peak


class _LiveBytes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if _is_tensor(tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given and id(storage) not in self._known:
                    self._known.add(id(storage))
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _freed(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.live -= num_bytes


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
