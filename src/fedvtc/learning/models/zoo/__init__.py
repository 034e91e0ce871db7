"""Trunks of backbones, one module per family; each maps an image to one flat row of features. No heads."""
