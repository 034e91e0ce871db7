"""Measures of what generated images, models and prototypes reveal about training images. No training of clients."""
