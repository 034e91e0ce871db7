"""Builds trunks of timm's image models, untrained, at the size of the images."""

import difflib
from typing import Any

from torch import nn

from fedvtc.config.names import TIMM
from fedvtc.config.own_code import OwnCodeError
from fedvtc.errors import FAILURES, reason
from fedvtc.learning.models.zoo.norm import centre_kernels, replace_batch_norms
from fedvtc.learning.models.zoo.own import num_features


def timm_model(num_channels: int, image_size: int, *, name: str) -> tuple[nn.Module, int]:
    """Builds a model of timm without its classification head, with the norms and kernels of other deep trunks.

    Strides stay as they are, unlike those of torchvision's architectures here: most models of timm divide the side
    by 32.

    Args:
        num_channels: channels of the images.
        image_size: side of the images in pixels.
        name: `timm:` and the name of the model.

    Raises:
        OwnCodeError: timm is not installed, lacks the model, or cannot build the model at this size.
    """
    # Imported here, because the import takes seconds and timm is an optional dependency.
    try:
        import timm
    except ImportError as error:
        what = f"{name} needs timm, which cannot be imported ({reason(error)})"
        raise OwnCodeError(what, "Install fedvtc[timm] on every node.") from None
    model = name.removeprefix(TIMM)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=1)
        fix = f"Did you mean {TIMM}{near[0]}?" if near else "timm.list_models() returns the names."
        raise OwnCodeError(f"{name} is not a model of timm {timm.__version__}", fix)
    config = timm.get_pretrained_cfg(model)
    # Transformers have a fixed size, and other models refuse the argument.
    size: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        trunk = timm.create_model(model, pretrained=False, num_classes=0, in_chans=num_channels, **size)
        replace_batch_norms(trunk)
        centre_kernels(trunk)
        return trunk, num_features(trunk, num_channels, image_size)
    except FAILURES as error:
        what = f"{name} cannot be built for images of {image_size} pixels ({reason(error)})"
        raise OwnCodeError(what, "Set a larger data.image_size, or another model.") from None
