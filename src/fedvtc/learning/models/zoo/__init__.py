"""The trunks of the backbones, one module per family: images in, one flat feature row per image out."""
