"""Builds trunks by functions of the user's own, and finds the number of features of a trunk."""

import torch
from torch import Tensor, nn

from fedvtc.config.own_code import SIGNATURES, OwnCodeError, own_function
from fedvtc.errors import FAILURES, reason

SIGNATURE = SIGNATURES["backbones"]


def own_trunk(num_channels: int, image_size: int, *, path: str) -> tuple[nn.Module, int]:
    """Builds a trunk by a function of channels and side; the trunk maps images (B, C, S, S) to features (B, D).

    Args:
        num_channels: channels C of the images.
        image_size: side S of the images in pixels.
        path: the function, `package.module:name`.

    Raises:
        OwnCodeError: the function cannot be imported or fails, or its result is no trunk.
    """
    build = own_function(path, SIGNATURE)
    called = f"{path}({num_channels}, {image_size})"
    try:
        trunk = build(num_channels, image_size)
    except FAILURES as error:
        raise OwnCodeError(f"{called} raises {reason(error)}", f"The function is called as {SIGNATURE}.") from None
    if not isinstance(trunk, nn.Module):
        what = f"{called} returns {type(trunk).__name__}, not a torch.nn.Module"
        raise OwnCodeError(what, f"Write a function {SIGNATURE}.")
    try:
        return trunk, num_features(trunk, num_channels, image_size)
    except FAILURES as error:
        raise OwnCodeError(f"the module of {called} fails ({reason(error)})", _SHAPES) from None


_SHAPES = "The module maps images (batch, channels, side, side) to features (batch, features)."


def num_features(trunk: nn.Module, num_channels: int, image_size: int) -> int:
    """Returns the features D of an image, from one grey image that passes the trunk.

    Raises:
        ValueError: the result is not one row of features per image.
        Exception: errors of the trunk.
    """
    was_training = trunk.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        features: object = trunk.eval()(torch.zeros(1, num_channels, image_size, image_size))
    trunk.train(was_training)
    if not isinstance(features, Tensor):
        raise ValueError(f"the result is a {type(features).__name__}, not a tensor")
    if features.ndim != 2 or len(features) != 1 or not features.is_floating_point():
        raise ValueError(f"the result for one image is {features.dtype} of the shape {tuple(features.shape)}")
    return features.shape[1]
