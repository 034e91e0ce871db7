"""Builds small convolutional trunks: the CNN family and ResNet-8."""

import math

from torch import nn

from fedvtc.learning.models.zoo.norm import group_norm

_MAX_MAP_SIDE = 4


def cnn(num_channels: int, image_size: int, *, num_layers: int, width: int) -> tuple[nn.Module, int]:
    """Builds blocks of conv3x3, max-pool, norm and ReLU, with a width that doubles per block, and a flattened last map.

    The last map is averaged to at most 4 x 4 pixels. With these positions, shallow trunks learn in fewer steps than
    with one global average.
    """
    layers: list[nn.Module] = []
    in_channels, side = num_channels, image_size
    for layer in range(num_layers):
        out_channels = width * 2**layer
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            # With ceil_mode a map of one pixel stays one pixel, so four layers fit on 8 x 8 images.
            nn.MaxPool2d(2, ceil_mode=True),
            # After pooling, on a quarter of the pixels, because on a CPU the norm costs as much as the convolution.
            group_norm(out_channels),
            nn.ReLU(inplace=True),
        ]
        in_channels, side = out_channels, math.ceil(side / 2)
    # Not AdaptiveAvgPool2d, whose backward pass is not deterministic on CUDA.
    kernel = math.ceil(side / _MAX_MAP_SIDE)
    side = math.ceil(side / kernel)
    layers += [nn.AvgPool2d(kernel, ceil_mode=True), nn.Flatten()]
    return nn.Sequential(*layers), in_channels * side**2


def resnet8(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds three stages of one basic block, 16, 32 and 64 channels: He et al. (2016), section 4.2, with n = 1."""
    # Imported only where used, because torchvision takes seconds to import and the CNNs do not need it.
    from torchvision.models.resnet import BasicBlock

    layers: list[nn.Module] = [
        nn.Conv2d(num_channels, 16, 3, padding=1, bias=False),
        group_norm(16),
        nn.ReLU(inplace=True),
        BasicBlock(16, 16, norm_layer=group_norm),
    ]
    for in_channels, out_channels in ((16, 32), (32, 64)):
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), group_norm(out_channels)
        )
        layers.append(BasicBlock(in_channels, out_channels, 2, shortcut, norm_layer=group_norm))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers), 64
