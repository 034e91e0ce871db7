"""Builds a vision transformer for small images."""

import math

from torch import nn

_PATCHES_PER_SIDE = 8
_MIN_PATCH_SIDE = 2
_DIM = 64


def vit_tiny(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds a ViT (Dosovitskiy et al. 2021) of width 64, four layers of four heads, no dropout, at most 8 x 8 patches.

    Images whose side is not a multiple of the patch's side are padded right and below with zeros, which are mid-grey.
    """
    from torchvision.models import VisionTransformer

    patch_size = max(_MIN_PATCH_SIDE, math.ceil(image_size / _PATCHES_PER_SIDE))
    padded_size = math.ceil(image_size / patch_size) * patch_size
    trunk = VisionTransformer(
        image_size=padded_size, patch_size=patch_size, num_layers=4, num_heads=4, hidden_dim=_DIM, mlp_dim=2 * _DIM
    )
    trunk.conv_proj = nn.Conv2d(num_channels, _DIM, kernel_size=patch_size, stride=patch_size)
    trunk.heads = nn.Identity()
    padding = padded_size - image_size
    return nn.Sequential(nn.ZeroPad2d((0, padding, 0, padding)), trunk), _DIM
