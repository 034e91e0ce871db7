"""Builds trunks by functions of the user's own, and finds the number of features of a trunk."""

import torch
from torch import Tensor, nn

from fedvtc.config.own_code import SIGNATURES, OwnCodeError, fault, own_function
from fedvtc.errors import FAILURES

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
    # The import draws numbers if the module builds networks, but in each process once, for the first client alone.
    with torch.random.fork_rng(devices=[]):
        build = own_function(path, SIGNATURE)
    called = f"{path}({num_channels}, {image_size})"
    try:
        trunk = build(num_channels, image_size)
    except FAILURES as error:
        raise OwnCodeError(f"{called} raises {fault(error)}", f"The function is called as {SIGNATURE}.") from None
    if not isinstance(trunk, nn.Module):
        what = f"{called} returns {type(trunk).__name__}, not a torch.nn.Module"
        raise OwnCodeError(what, f"Write a function {SIGNATURE}.")
    if any(getattr(weight, _IN_USE, False) for weight in trunk.parameters()):
        what = f"{called} returns weights that another client has already, so the clients would train one model"
        raise OwnCodeError(what, "Build a new module in each call.")
    try:
        size = num_features(trunk, num_channels, image_size)
    except FAILURES as error:
        raise OwnCodeError(f"the module of {called} fails ({fault(error)})", _SHAPES) from None
    for weight in trunk.parameters():
        setattr(weight, _IN_USE, True)
    return trunk, size


_IN_USE = "_fedvtc_in_use"
"""Attribute of a weight that belongs to a client; a copy of the weight does not have the attribute."""
_SHAPES = "The module maps images (batch, channels, side, side) to features (batch, features)."


def num_features(trunk: nn.Module, num_channels: int, image_size: int) -> int:
    """Returns the features D of an image, from grey images that pass the trunk: one alone, and two at once.

    Raises:
        ValueError: the result is not one row of float32 features per image.
        Exception: errors of the trunk.
    """
    was_training = trunk.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        trunk.eval()
        images = torch.zeros(2, num_channels, image_size, image_size)
        results: list[object] = [trunk(images[:1]), trunk(images)]
    trunk.train(was_training)
    size = 0
    for num_images, features in enumerate(results, start=1):
        if not isinstance(features, Tensor):
            raise ValueError(f"the result is a {type(features).__name__}, not a tensor")
        size = size or features.shape[-1] if features.ndim else 0
        if not size or features.dtype != torch.float32 or features.shape != (num_images, size):
            count = "one image" if num_images == 1 else "two images"
            raise ValueError(f"the result for {count} is {features.dtype} of the shape {tuple(features.shape)}")
    return size
