"""The networks of a client."""

from fedvtc.models.backbones import build_backbone, parameter_count, parameter_counts

__all__ = ["build_backbone", "parameter_count", "parameter_counts"]
