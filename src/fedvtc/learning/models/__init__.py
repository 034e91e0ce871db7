"""Networks of a client, their weights and optimizers. No training loop."""

from fedvtc.learning.models.backbones import build_backbone, flops_of_image, parameter_count, parameter_counts

__all__ = ["build_backbone", "flops_of_image", "parameter_count", "parameter_counts"]
