"""The transposed-convolution decoder, from latents to images."""

from torch import Tensor, nn


def map_plan(image_size: int, width: int) -> tuple[int, list[int]]:
    """Returns the side of a decoder's first map, of 4 to 8 pixels, and the channels of each map, the coarsest first.

    The side doubles from map to map until the map covers the image.
    """
    num_doublings = max(1, (image_size // 4).bit_length() - 1)
    # Coarse maps wider than four times the last width cost time and did not sharpen images on MNIST.
    channels = [width * min(4, 2**step) for step in reversed(range(num_doublings))]
    return -(-image_size // 2**num_doublings), channels


def decoder_layers(feature_size: int, num_channels: int, image_size: int, width: int) -> list[nn.Module]:
    """Builds the layers of a decoder before its output: a linear layer to a small map, and transposed convolutions."""
    map_size, channels = map_plan(image_size, width)
    layers: list[nn.Module] = [
        nn.Linear(feature_size, channels[0] * map_size**2),
        nn.Unflatten(1, (channels[0], map_size, map_size)),
    ]
    for num_in, num_out in zip(channels, [*channels[1:], num_channels], strict=True):
        layers += [norm(num_in), nn.ReLU(), nn.ConvTranspose2d(num_in, num_out, kernel_size=4, stride=2, padding=1)]
    return [*layers, _Crop(image_size)]


def build_decoder(feature_size: int, num_channels: int, image_size: int, width: int) -> nn.Sequential:
    """Builds a decoder to images in [-1, 1]: the `decoder_layers` and tanh."""
    return nn.Sequential(*decoder_layers(feature_size, num_channels, image_size, width), nn.Tanh())


def norm(num_channels: int) -> nn.GroupNorm:
    """Builds the GroupNorm of a map."""
    groups = next(groups for groups in (8, 4, 2, 1) if num_channels % groups == 0)
    return nn.GroupNorm(groups, num_channels)


class _Crop(nn.Module):
    """Crops maps that the doublings made larger than the image."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        return images[..., : self.image_size, : self.image_size]
