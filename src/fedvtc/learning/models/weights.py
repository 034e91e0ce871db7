"""Converts the weights of a module to NumPy arrays for a message, and back."""

import numpy as np
from numpy.typing import NDArray
from torch import nn, tensor

from fedvtc.learning.exchange.messages import Arrays


def weights_of(module: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Returns copies of all parameters and buffers of a module, by name, on the CPU."""
    return {name: weight.detach().cpu().numpy().copy() for name, weight in module.state_dict().items()}


def load_weights(module: nn.Module, arrays: Arrays) -> None:
    """Replaces all parameters and buffers of a module by the arrays of `weights_of`; the arrays may be read-only."""
    module.load_state_dict({name: tensor(array) for name, array in arrays.items()})
