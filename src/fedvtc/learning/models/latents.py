"""Draws latents of a class from Gaussians in feature space.

Shapes: K Gaussians, C classes, D features, N latents, M of the N latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedvtc.learning.exchange.gaussians import ClassGaussians

MOST_NUMBERS = 2**23
"""Most numbers of a tensor with a row of weights, or a matrix, per latent; 32 MiB."""


class LatentSampler:
    """Draws a latent v for a label y from the Gaussians of class y.

    With the server's Gaussians, v ~ N(c^y, sigma^2). With a mixture of the clients' Gaussians, a Gaussian of class y is
    chosen first, with a probability in proportion to the Gaussian's number of images.

    Args:
        gaussians: one row or several per class.
        num_classes: classes C.
        device: device of the latents.
    """

    def __init__(self, gaussians: ClassGaussians, *, num_classes: int, device: torch.device) -> None:
        self.device = device
        self._mean_KD = torch.tensor(gaussians.mean_KD, device=device)
        is_full = gaussians.spread.ndim == 3
        self._spread = torch.tensor(gaussians.spread if is_full else gaussians.std_KD(), device=device)
        self._weight_CK = torch.zeros(num_classes, len(gaussians.classes_K), device=device)
        labels_K = torch.tensor(gaussians.classes_K, device=device)
        self._weight_CK[labels_K, torch.arange(len(labels_K), device=device)] = torch.tensor(
            gaussians.count_K, dtype=torch.float32, device=device
        )
        self.classes = sorted(set(labels_K.tolist()))

    def draw(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Draws one latent per label from PyTorch's global generator; every label must be in `classes`.

        Returns:
            Latents (N, D), and the row of each latent's Gaussian (N,).
        """
        row_N = torch.cat(
            [torch.multinomial(self._weight_CK[part], 1).flatten() for part in _parts(labels_N, self._weight_CK[0])]
        )
        noise_ND = torch.randn(len(labels_N), self._mean_KD.shape[1], device=self._mean_KD.device)
        parts = zip(_parts(row_N, self._spread[0]), _parts(noise_ND, self._spread[0]), strict=True)
        scaled_ND = torch.cat([self._scaled(row_M, noise_MD) for row_M, noise_MD in parts])
        return self._mean_KD[row_N] + scaled_ND, row_N

    def _scaled(self, row_M: Tensor, noise_MD: Tensor) -> Tensor:
        spread = self._spread[row_M]
        return torch.einsum("nij,nj->ni", spread, noise_MD) if spread.ndim == 3 else spread * noise_MD


def _parts(values: Tensor, like: Tensor) -> Sequence[Tensor]:
    """Splits the first dimension so that one tensor of the size of `like` per row stays below `MOST_NUMBERS`."""
    parts: Sequence[Tensor] = values.split(max(1, MOST_NUMBERS // like.numel()))
    return parts
