"""Converts the weights of a module and the state of an optimizer to NumPy arrays, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, equal, nn, tensor
from torch.optim import Optimizer

from fedvtc.learning.exchange.messages import Arrays


def weights_of(module: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Returns copies of all parameters and buffers of a module, by name, on the CPU."""
    return {name: weight.detach().cpu().numpy().copy() for name, weight in module.state_dict().items()}


def equal_weights(first: nn.Module, second: nn.Module) -> bool:
    """Returns True if two modules of one form have equal parameters and buffers, on any devices."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(equal(one.cpu(), other.cpu()) for one, other in pairs)


def load_weights(module: nn.Module, arrays: Arrays) -> None:
    """Replaces all parameters and buffers of a module by the arrays of `weights_of`; the arrays may be read-only.

    Raises:
        RuntimeError: names or shapes differ from those of the module.
    """
    own = module.state_dict()
    if own.keys() != arrays.keys() or any(own[name].shape != array.shape for name, array in arrays.items()):
        module.load_state_dict({name: tensor(array) for name, array in arrays.items()})
    # Not `load_state_dict`, whose checks of each submodule take longer than the copies for a small module.
    for name, weight in own.items():
        weight.copy_(tensor(arrays[name]))


def optimizer_arrays(optimizer: Optimizer) -> dict[str, NDArray[np.generic]]:
    """Returns copies of an optimizer's state, as `NUMBER/NAME` such as `0/exp_avg`; empty before the first step.

    Numbers are those of the parameters, in the order in which the optimizer received them. Learning rates and other
    settings are left out, because they follow from the config and the round.
    """
    return {
        f"{number}/{name}": value.detach().cpu().numpy().copy()
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: Optimizer, arrays: Arrays) -> None:
    """Replaces the state of an optimizer by `optimizer_arrays`; the settings of the optimizer stay."""
    state: dict[int, dict[str, Any]] = {}
    for key, array in arrays.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = tensor(array)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
