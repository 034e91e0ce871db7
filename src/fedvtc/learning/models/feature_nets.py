"""Small networks that work on features instead of images, trained by a server.

Shapes: B rows of a batch, C classes, D features, L entries of a noise vector.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class PrototypeNet(nn.Module):
    """A learned prototype per class: a network F of a learned embedding E (FedTGP, Zhang et al. 2024).

    Args:
        num_classes: classes C.
        feature_size: features D, also the size of an embedding and of the hidden layer.
    """

    def __init__(self, num_classes: int, feature_size: int) -> None:
        super().__init__()
        self.embedding_CD = nn.Parameter(torch.randn(num_classes, feature_size))
        self.net = nn.Sequential(
            nn.Linear(feature_size, feature_size), nn.ReLU(), nn.Linear(feature_size, feature_size)
        )

    def forward(self) -> Tensor:
        """Returns the prototypes (C, D) of all classes."""
        return cast(Tensor, self.net(self.embedding_CD))


class FeatureGenerator(nn.Module):
    """A generator of features of a class from noise (FedGen, Zhu et al. 2021).

    The output ends in the LayerNorm of the backbones, so that generated and real features have one scale; the
    LayerNorm is our addition.

    Args:
        num_classes: classes C.
        feature_size: features D.
        noise_size: entries L of a noise vector.
        hidden_size: width of the hidden layer.
    """

    def __init__(self, num_classes: int, feature_size: int, *, noise_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_classes, self.noise_size = num_classes, noise_size
        self.net = nn.Sequential(
            nn.Linear(noise_size + num_classes, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, feature_size),
            nn.LayerNorm(feature_size, elementwise_affine=False),
        )

    def draw_noise(self, num_rows: int) -> Tensor:
        """Draws noise vectors (B, L) of a standard normal distribution from PyTorch's global generator."""
        return torch.randn(num_rows, self.noise_size, device=next(self.parameters()).device)

    def forward(self, noise_BL: Tensor, labels_B: Tensor) -> Tensor:
        """Maps noise and classes to features (B, D)."""
        onehot_BC = functional.one_hot(labels_B, self.num_classes).to(noise_BL.dtype)
        return cast(Tensor, self.net(torch.cat([noise_BL, onehot_BC], dim=1)))
