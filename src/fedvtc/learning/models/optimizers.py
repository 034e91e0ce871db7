"""Builds the optimizer of a config section."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fedvtc.config.schema import OptimizerConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Builds Adam, AdamW or SGD over parameters, or over PyTorch's groups of parameters."""
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)
