"""Trunks of backbones, one module per family; a builder returns a trunk and its number of features. No heads."""
