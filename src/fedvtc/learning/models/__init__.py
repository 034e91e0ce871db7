"""The networks of a client."""

from fedvtc.learning.models.backbones import build_backbone, flops_of_image, parameter_count, parameter_counts

__all__ = ["build_backbone", "flops_of_image", "parameter_count", "parameter_counts"]
