"""Batches of one client: functions for a run, and a LightningDataModule for `lightning.Trainer`.

Shapes: B images of a batch, N images in all, C channels, H x W pixels.
"""

from collections.abc import Iterator
from typing import Any, Literal

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from fedvtc.learning.data.datasets import ImageArrays
from fedvtc.learning.data.passes import batch_sizes
from fedvtc.learning.seeding import SERVER, derive_seed

Augmentation = Literal["none", "shift", "shift_flip"]
Batch = tuple[torch.Tensor, torch.Tensor]


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Copies an array into a tensor.

    `torch.from_numpy` would share arrays of Ray's object store, which are read-only, and a write would crash.
    """
    return torch.from_numpy(np.array(array, order="C"))


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Converts pixels 0 to 255 (uint8, any shape) to float32 in [-1, 1], the range of backbones and generators."""
    return torch.div(images, 127.5).sub_(1.0)


def augment(images_BCHW: torch.Tensor, kind: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Shifts each image by up to an eighth of its side; `shift_flip` also mirrors an image with probability 1/2.

    Args:
        images_BCHW: float images in [-1, 1]; shifted-in pixels are black (-1).
        kind: `none` returns the images unchanged and draws nothing.
        generator: source of random draws; may be on another device than the images.
    """
    return shifted(images_BCHW, *draw_shifts(len(images_BCHW), min(images_BCHW.shape[2:]), kind, generator))


def draw_shifts(
    num_images: int, side: int, kind: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Draws the random numbers of `augment` for images of a side, in pixels.

    Returns:
        The shifts of each image (2, B), 0 to twice the reach, and True for each mirrored image (B,); None for a change
        that `kind` lacks.
    """
    if kind == "none":
        return None, None
    device = generator.device
    shifts_2B = torch.randint(2 * (side // 8) + 1, (2, num_images), generator=generator, device=device)
    if kind == "shift":
        return shifts_2B, None
    return shifts_2B, torch.rand(num_images, generator=generator, device=device) < 0.5


def shifted(images_BCHW: torch.Tensor, shifts_2B: torch.Tensor | None, mirrored_B: torch.Tensor | None) -> torch.Tensor:
    """Applies the changes of `draw_shifts`."""
    if shifts_2B is None:
        return images_BCHW
    num_images, _, height, width = images_BCHW.shape
    reach = min(height, width) // 8
    device = images_BCHW.device
    shifts_2B = shifts_2B.to(device)
    rows_BH = shifts_2B[0, :, None] + torch.arange(height, device=device)
    columns_BW = shifts_2B[1, :, None] + torch.arange(width, device=device)
    if mirrored_B is not None:
        columns_BW = torch.where(mirrored_B.to(device)[:, None], columns_BW.flip(1), columns_BW)
    padded_BCHW = torch.nn.functional.pad(images_BCHW, (reach, reach, reach, reach), value=-1.0)
    numbers_B = torch.arange(num_images, device=device)
    shifted_BHWC = padded_BCHW[numbers_B[:, None, None], :, rows_BH[:, :, None], columns_BW[:, None, :]]
    return shifted_BHWC.permute(0, 3, 1, 2).contiguous()


def epoch_batches(num_images: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yields the index tensors of one epoch: a random permutation in batches, every index once.

    Batch normalisation cannot train on a single 1 x 1 map, so no epoch ends in a batch of one image: the last two
    batches share their images evenly (with `batch_size` 2 they become one batch of three). Only a client with a single
    image, or `batch_size` 1, has batches of one image.
    """
    order_N = torch.randperm(num_images, generator=generator, device=generator.device)
    yield from torch.split(order_N, batch_sizes(num_images, batch_size))


class _Images(Dataset[Batch]):
    """Batches by index tensor: one lookup per batch, because a lookup per image would cost more than a small step."""

    def __init__(self, images_NCHW: torch.Tensor, labels_N: torch.Tensor, kind: Augmentation, seed: int) -> None:
        self.images_NCHW, self.labels_N, self.kind = images_NCHW, labels_N, kind
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        images = to_input(self.images_NCHW[indices])
        return augment(images, self.kind, self.generator), self.labels_N[indices]


class _ShuffledBatches(Sampler[torch.Tensor]):
    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size = num_images, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return epoch_batches(self.num_images, self.batch_size, self.generator)

    def __len__(self) -> int:
        return len(batch_sizes(self.num_images, self.batch_size))


class ClientDataModule(lightning.LightningDataModule):
    """One client's data for `lightning.Trainer`: the client's images for training, the global test set for validation.

    Batches are (images_BCHW float32 in [-1, 1], labels_B int64).

    Args:
        train: training images of all clients.
        indices: indices of the client's images.
        test: the global test set.
        batch_size: images per training batch.
        eval_batch_size: images per validation batch.
        augmentation: random change of training images.
        seed: seed of order and augmentation.
    """

    def __init__(
        self,
        train: ImageArrays,
        indices: NDArray[np.int64],
        test: ImageArrays,
        *,
        batch_size: int = 32,
        eval_batch_size: int = 500,
        augmentation: Augmentation = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        seed_of_images = derive_seed(seed, round=0, client=SERVER, purpose="datamodule/augment")
        self._train = _Images(
            to_tensor(train.images_NCHW[indices]), to_tensor(train.labels_N[indices]), augmentation, seed_of_images
        )
        self._test = _Images(to_tensor(test.images_NCHW), to_tensor(test.labels_N), "none", 0)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Builds the loader of training batches, shuffled for each epoch."""
        seed = derive_seed(self.seed, round=0, client=SERVER, purpose="datamodule/order")
        # batch_size=None: the sampler yields whole batches, so nothing is collated.
        batches = _ShuffledBatches(len(self._train), self.batch_size, seed)
        return DataLoader(self._train, sampler=batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Builds the loader of test batches, in order."""
        batches = torch.split(torch.arange(len(self._test)), self.eval_batch_size)
        return DataLoader(self._test, sampler=batches, batch_size=None)


def draw_affine(num_images: int, device: torch.device) -> torch.Tensor:
    """Draws a turn by up to 12 degrees, a scale of 0.9 to 1.1 and a shift of up to a sixteenth of the side per image.

    Draws from PyTorch's global generator.

    Returns:
        A matrix for each image, (B, 2, 3).
    """
    angle_B, scale_B, right_B, down_B = (2 * torch.rand(4, num_images, device=device) - 1).unbind()
    angle_B, scale_B = angle_B * (12 * torch.pi / 180), 1 + 0.1 * scale_B
    # Coordinates run from -1 to 1, so an eighth of a unit is a sixteenth of the side.
    return torch.stack(
        [
            scale_B * angle_B.cos(),
            -scale_B * angle_B.sin(),
            right_B / 8,
            scale_B * angle_B.sin(),
            scale_B * angle_B.cos(),
            down_B / 8,
        ],
        dim=1,
    ).view(num_images, 2, 3)


def moved(images_BCHW: torch.Tensor, theta_B23: torch.Tensor) -> torch.Tensor:
    """Turns, scales and shifts images by the matrices of `draw_affine`; pixels from outside are black (-1)."""
    grid = torch.nn.functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    # Black is 0 during resampling, the value outside of the image.
    return torch.nn.functional.grid_sample(images_BCHW + 1.0, grid, align_corners=False) - 1.0
