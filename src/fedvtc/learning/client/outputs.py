"""Outputs of a module for all images of a client, and their means by class.

Shapes: N images of the client, D values of an image, K classes held.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedvtc.learning.client.client import FederatedClient

_CHUNK = 500
"""Images in a forward pass."""


@torch.no_grad()
def own_outputs(client: FederatedClient, module: nn.Module, output: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Returns the outputs for the client's own images in their order, without augmentation; sets the module to eval.

    Args:
        client: the client.
        module: the module.
        output: a function of images that uses the module; None calls the module.
    """
    module.eval()
    chunks = torch.arange(client.num_images).split(_CHUNK)
    return torch.cat([(output or module)(client.images.inputs(index_B)) for index_B in chunks])


def class_means(values_ND: Tensor, labels_N: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the classes held (K,), ascending, and the mean of the values of each (K, D), summed in float64."""
    values, labels = values_ND.cpu().numpy(), labels_N.cpu().numpy()
    classes_K = np.unique(labels)
    mean_KD = np.stack([values[labels == label].mean(axis=0, dtype=np.float64) for label in classes_K])
    return classes_K.astype(np.int32), mean_KD.astype(np.float32)
