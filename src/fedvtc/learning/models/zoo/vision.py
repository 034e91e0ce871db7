"""Builds trunks of torchvision's architectures, untrained, for images of 8 to 64 pixels.

Each trunk loses its classification head, its BatchNorms (see `norm`) and the early strides for ImageNet's 224 pixels:
the first convolution becomes 3 x 3 with stride 1 over the channels of the images. Dropout and stochastic depth are off,
so that training draws no random numbers. torchvision is imported by the first builder that runs, because the import
takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from fedvtc.learning.models.zoo.norm import centre_kernels, replace_batch_norms

if TYPE_CHECKING:
    from torchvision import models


def resnet(num_channels: int, image_size: int, *, name: str) -> tuple[nn.Module, int]:
    """Builds a ResNet (He et al. 2016) without the first max-pool: a stride of 8 in all."""
    from torchvision import models

    trunk = getattr(models, name)(weights=None)
    trunk.conv1 = _stem(trunk.conv1, num_channels)
    trunk.maxpool = nn.Identity()
    return _headless(trunk, "fc", trunk.fc.in_features)


def mobilenet_v2(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds MobileNetV2 (Sandler et al. 2018)."""
    from torchvision import models

    trunk = models.mobilenet_v2(weights=None)
    return _inverted_residual_trunk(trunk, trunk.last_channel, num_channels)


def mobilenet_v3_small(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds MobileNetV3-Small (Howard et al. 2019)."""
    from torchvision import models

    trunk = models.mobilenet_v3_small(weights=None)
    return _inverted_residual_trunk(trunk, trunk.classifier[0].in_features, num_channels)


def efficientnet_b0(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds EfficientNet-B0 (Tan and Le 2019)."""
    from torchvision import models

    trunk = models.efficientnet_b0(weights=None, stochastic_depth_prob=0.0)
    return _inverted_residual_trunk(trunk, trunk.classifier[1].in_features, num_channels)


def googlenet(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds GoogLeNet (Szegedy et al. 2015) without auxiliary classifiers and without the first max-pool.

    GoogLeNet has no shortcuts and needs small steps without BatchNorm: Adam learns at 2e-4 and collapses at 1e-3.
    """
    from torchvision import models

    trunk = models.googlenet(weights=None, aux_logits=False, init_weights=False)
    trunk.conv1.conv = _stem(trunk.conv1.conv, num_channels)
    trunk.maxpool1 = nn.Identity()
    trunk.dropout = nn.Identity()
    return _headless(trunk, "fc", trunk.fc.in_features)


def shufflenet_v2(num_channels: int, image_size: int) -> tuple[nn.Module, int]:
    """Builds ShuffleNetV2 x1.0 (Ma et al. 2018) without the first max-pool."""
    from torchvision import models

    trunk = models.shufflenet_v2_x1_0(weights=None)
    trunk.conv1[0] = _stem(trunk.conv1[0], num_channels)
    trunk.maxpool = nn.Identity()
    return _headless(trunk, "fc", trunk.fc.in_features)


def _inverted_residual_trunk(
    trunk: models.MobileNetV2 | models.MobileNetV3 | models.EfficientNet, num_features: int, num_channels: int
) -> tuple[nn.Module, int]:
    """Fits a MobileNet or EfficientNet: a list of `features`, the stem first, and a `classifier`."""
    trunk.features[0][0] = _stem(trunk.features[0][0], num_channels)
    # The first of the later strides becomes 1 too: a stride of 8 in all, as in a ResNet for small images.
    strided = next(m for m in trunk.features.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2))
    strided.stride = (1, 1)
    return _headless(trunk, "classifier", num_features)


def _stem(conv: nn.Conv2d, num_channels: int) -> nn.Conv2d:
    return nn.Conv2d(num_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)


def _headless(trunk: nn.Module, head: str, num_features: int) -> tuple[nn.Module, int]:
    setattr(trunk, head, nn.Identity())
    replace_batch_norms(trunk)
    centre_kernels(trunk)
    return trunk, num_features
