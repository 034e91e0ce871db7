"""Builds backbones by name; all end in the same number of features.

Shapes: B images in the batch, C channels, S pixels a side, p features.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedvtc.config.names import BACKBONES, TIMM
from fedvtc.config.own_code import OwnCodeError
from fedvtc.config.registered import import_path
from fedvtc.errors import ConfigError
from fedvtc.learning.models.zoo import cnn, own, timm_models, vision, vit

_MIN_IMAGE_SIZE = 8

_CNNS = ((2, 8), (2, 16), (2, 32), (3, 16), (3, 32), (3, 64), (4, 16), (4, 32), (4, 64))
_TRUNKS: dict[str, Callable[[int, int], tuple[nn.Module, int]]] = {
    **{f"cnn_{layers}x{width}": partial(cnn.cnn, num_layers=layers, width=width) for layers, width in _CNNS},
    "resnet8": cnn.resnet8,
    "resnet18": partial(vision.resnet, name="resnet18"),
    "resnet34": partial(vision.resnet, name="resnet34"),
    "resnet50": partial(vision.resnet, name="resnet50"),
    "mobilenet_v2": vision.mobilenet_v2,
    "mobilenet_v3_small": vision.mobilenet_v3_small,
    "googlenet": vision.googlenet,
    "efficientnet_b0": vision.efficientnet_b0,
    "shufflenet_v2": vision.shufflenet_v2,
    "vit_tiny": vit.vit_tiny,
}


class Backbone(nn.Module):
    """A trunk, a learned projection to p features, and a normalisation of each image's features.

    The server averages prototypes of different architectures. Without normalisation the scales of their features
    differ by orders of magnitude and the largest scale dominates, so a LayerNorm without weights gives each feature row
    mean 0 and variance 1.
    """

    def __init__(self, trunk: nn.Module, num_trunk_features: int, feature_size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = nn.Linear(num_trunk_features, feature_size)
        self.norm = nn.LayerNorm(feature_size, elementwise_affine=False)

    def forward(self, images_BCSS: Tensor) -> Tensor:
        """Maps images (B, C, S, S) in [-1, 1] to features (B, p)."""
        return cast(Tensor, self.norm(self.projection(self.trunk(images_BCSS))))


def build_backbone(name: str, *, num_channels: int, image_size: int, feature_size: int) -> Backbone:
    """Builds a backbone with new weights, drawn from PyTorch's global generator.

    Args:
        name: a value of `population.backbones[].name`.
        num_channels: channels C of the images.
        image_size: side S of the images in pixels, at least 8.
        feature_size: features p of an image.

    Raises:
        ConfigError: the name is unknown, the images are too small, or the user's own code fails.
    """
    if image_size < _MIN_IMAGE_SIZE:
        raise ConfigError(
            [f"data.image_size: {image_size} pixels are too few for a backbone. Set data.image_size={_MIN_IMAGE_SIZE}."]
        )
    try:
        trunk, num_trunk_features = _builder(name)(num_channels, image_size)
    except OwnCodeError as error:
        raise ConfigError([f"population.backbones: {error.what}. {error.fix}"]) from None
    return Backbone(trunk, num_trunk_features, feature_size)


def _builder(name: str) -> Callable[[int, int], tuple[nn.Module, int]]:
    """Returns the function of channels and side that builds a trunk.

    Raises:
        OwnCodeError: the name is unknown, or no installed code belongs to the name.
    """
    if name.startswith(TIMM):
        return partial(timm_models.timm_model, name=name)
    path = import_path("backbones", name, BACKBONES)
    if path is not None:
        return partial(own.own_trunk, path=path)
    if name not in _TRUNKS:
        raise OwnCodeError(f"{name!r} is not a backbone", f"Known: {', '.join(BACKBONES)}.")
    return _TRUNKS[name]


def parameter_counts(names: Iterable[str], *, num_channels: int, image_size: int, feature_size: int) -> dict[str, int]:
    """Counts the parameters of each backbone, in the order in which the names first appear."""
    sizes = {"num_channels": num_channels, "image_size": image_size, "feature_size": feature_size}
    return {name: parameter_count(build_backbone(name, **sizes)) for name in dict.fromkeys(names)}


@cache
def flops_of_image(name: str, *, num_channels: int, image_size: int, feature_size: int) -> int:
    """Counts the floating-point operations of one image in a backbone's forward pass, which runs once on the CPU.

    Not on the device `meta`: its first pass imports sympy, which takes longer than the pass.
    """
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(name, num_channels=num_channels, image_size=image_size, feature_size=feature_size)
    image = torch.zeros(1, num_channels, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.eval()(image)
    return int(counter.get_total_flops())


def parameter_count(module: nn.Module) -> int:
    """Counts the trained parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
