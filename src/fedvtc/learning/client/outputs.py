"""Outputs of a module for all images of a client."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedvtc.learning.client.client import FederatedClient

_CHUNK = 500
"""Images in a forward pass."""


@torch.no_grad()
def own_outputs(client: FederatedClient, module: nn.Module, output: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Returns the outputs for the client's own images in their order, without augmentation; sets the module to eval.

    Several modules in one phase count their own operations each: a module of the client by its name, any other module
    by its architecture.

    Args:
        client: the client.
        module: the module.
        output: a function of images that uses the module; None calls the module.
    """
    module.eval()
    chunks = torch.arange(client.num_images).split(_CHUNK)
    compute = output or module

    def outputs() -> Tensor:
        return torch.cat([compute(client.images.inputs(index_B)) for index_B in chunks])

    # Not by the type: a classifier and a proxy of another architecture have one type.
    name = next((name for name, own in client.modules.items() if own is module), None) or repr(module)
    return client.counted(f"{name} {getattr(output, '__qualname__', '')}", client.num_images, outputs)
