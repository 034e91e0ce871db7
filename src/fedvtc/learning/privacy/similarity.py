"""SSIM and PSNR of images to their nearest training images.

Shapes: N images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedvtc.learning.data.module import to_tensor

SMALL_SIDE = 16
"""Smaller images have a narrower window of SSIM, because the usual window of 11 pixels leaves nothing of them."""
_CHUNK = 500


@dataclass(frozen=True, eq=False)
class Similarity:
    """The similarity of pairs of images.

    Attributes:
        psnr_N: peak signal-to-noise ratio in dB, at most 100, which stands for equal images.
        ssim_N: structural similarity (Wang et al. 2004), 1 for equal images.
    """

    psnr_N: NDArray[np.float64]
    ssim_N: NDArray[np.float64]

    @classmethod
    def of(cls, images_NCHW: NDArray[np.uint8], others_NCHW: NDArray[np.uint8]) -> "Similarity":
        """Compares each image with the other image of the same index; pixels are from 0 to 255."""
        parts = [
            _similarity(*(_unit(images[start : start + _CHUNK]) for images in (images_NCHW, others_NCHW)))
            for start in range(0, len(images_NCHW), _CHUNK)
        ]
        psnr_N, ssim_N = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
        return cls(psnr_N, ssim_N)


def _unit(images_NCHW: NDArray[np.uint8]) -> Tensor:
    return to_tensor(images_NCHW).float() / 255


def _similarity(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    # Imported here, because the import takes a second.
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    sigma = 1.5 if min(images.shape[2:]) >= SMALL_SIDE else 0.5
    psnr_N = peak_signal_noise_ratio(images, others, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim_N = structural_similarity_index_measure(images, others, data_range=1.0, sigma=sigma, reduction="none")
    assert isinstance(ssim_N, Tensor)
    return psnr_N.clamp(max=100.0), ssim_N.reshape(-1)
