"""The transposed-convolution decoder, from latents to images."""

from torch import Tensor, nn


def build_decoder(feature_size: int, num_channels: int, image_size: int, width: int) -> nn.Sequential:
    """Builds a decoder: a linear layer to a small map, transposed convolutions that double the side, and tanh."""
    num_doublings = max(1, (image_size // 4).bit_length() - 1)
    map_size = -(-image_size // 2**num_doublings)
    # Coarse maps wider than four times the last width cost time and did not sharpen images on MNIST.
    channels = [width * min(4, 2**step) for step in reversed(range(num_doublings))]
    layers: list[nn.Module] = [
        nn.Linear(feature_size, channels[0] * map_size**2),
        nn.Unflatten(1, (channels[0], map_size, map_size)),
    ]
    for num_in, num_out in zip(channels, [*channels[1:], num_channels], strict=True):
        layers += [_norm(num_in), nn.ReLU(), nn.ConvTranspose2d(num_in, num_out, kernel_size=4, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.Tanh(), _Crop(image_size))


class _Crop(nn.Module):
    """Crops maps that the doublings made larger than the image."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        return images[..., : self.image_size, : self.image_size]


def _norm(num_channels: int) -> nn.GroupNorm:
    groups = next(groups for groups in (8, 4, 2, 1) if num_channels % groups == 0)
    return nn.GroupNorm(groups, num_channels)
