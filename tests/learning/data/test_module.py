import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import ClientDataModule, augment, epoch_batches, to_input, to_tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_to_input_maps_0_to_minus_1_and_255_to_1():
    inputs = to_input(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == pytest.approx([-1.0, -0.6, 1.0])


def test_to_tensor_copies_read_only_and_transposed_arrays():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    array.flags.writeable = False
    tensor = to_tensor(array)
    tensor[0, 0] = 99
    assert array[0, 0] == 0
    assert tensor.tolist() == [[99, 3], [1, 4], [2, 5]]
    assert tensor.is_contiguous()


@settings(deadline=None)
@given(num_images=st.integers(1, 70), batch_size=st.integers(1, 20), seed=st.integers(0, 3))
def test_an_epoch_has_every_index_once_in_batches_of_the_size_and_no_lone_image(num_images, batch_size, seed):
    batches = list(epoch_batches(num_images, batch_size, generator(seed)))
    assert sorted(torch.cat(batches).tolist()) == list(range(num_images))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= max(batch_size, 3 if batch_size == 2 else 0)
    assert all(size == batch_size for size in sizes[:-2])
    if num_images > 1 and batch_size > 1:
        assert min(sizes) > 1
    again = torch.cat(list(epoch_batches(num_images, batch_size, generator(seed))))
    assert torch.equal(torch.cat(batches), again)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (9, 4, [4, 3, 2]),
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (5, 2, [2, 3]),
        (3, 2, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batch_sizes_by_hand(num_images, batch_size, sizes):
    assert [len(batch) for batch in epoch_batches(num_images, batch_size, generator())] == sizes


def test_epochs_of_one_generator_differ_and_are_shuffled():
    stream = generator()
    first, second = (torch.cat(list(epoch_batches(50, 8, stream))) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.arange(50))


def marked_images(num_images: int, size: int = 16, channels: int = 2) -> torch.Tensor:
    """Black images, except for a pixel of 1 at row 8, column 6."""
    images = torch.full((num_images, channels, size, size), -1.0)
    images[:, :, 8, 6] = 1.0
    return images


def marks(images: torch.Tensor) -> torch.Tensor:
    """Row and column of each image's one pixel, (B, 2); the same in all channels."""
    places = (images > 0).nonzero()
    by_channel = places[:, 2:].reshape(images.shape[0], images.shape[1], 2)
    assert (by_channel == by_channel[:, :1]).all()
    return by_channel[:, 0]


def test_no_augmentation_returns_the_images_and_draws_nothing():
    images, stream = marked_images(3), generator()
    state = stream.get_state()
    assert augment(images, "none", stream) is images
    assert torch.equal(stream.get_state(), state)


def test_shifts_move_whole_images_by_up_to_an_eighth_each_way_each_image_for_itself():
    images = marked_images(500)
    shifted = augment(images, "shift", generator())
    assert shifted.shape == images.shape
    assert shifted.is_contiguous()
    places = marks(shifted)
    assert set(places[:, 0].tolist()) == {6, 7, 8, 9, 10}
    assert set(places[:, 1].tolist()) == {4, 5, 6, 7, 8}
    assert len(set(map(tuple, places.tolist()))) == 25
    assert torch.equal(shifted, augment(images, "shift", generator()))
    assert torch.equal(images, marked_images(500))


def test_shifted_in_pixels_are_black_and_shifted_out_ones_are_lost():
    white = torch.ones(200, 1, 8, 8)
    shifted = augment(white, "shift", generator())
    assert set(shifted.unique().tolist()) == {-1.0, 1.0}
    assert set((shifted > 0).sum(dim=(1, 2, 3)).tolist()) == {64, 56, 49}


def test_mirroring_turns_about_half_of_the_images():
    # Columns 4 to 8 mirrored in 16 are 7 to 11.
    columns = marks(augment(marked_images(2000), "shift_flip", generator()))[:, 1]
    assert set(columns.tolist()) == set(range(4, 12))
    assert (columns >= 9).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_images_too_small_to_shift_are_still_mirrored():
    images = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]).repeat(50, 1, 1, 1)
    assert torch.equal(augment(images, "shift", generator()), images)
    mirrored = augment(images, "shift_flip", generator())
    assert {tuple(image.flatten().tolist()) for image in mirrored} == {
        tuple(images[0].flatten().tolist()),
        tuple(images[0].flip(-1).flatten().tolist()),
    }


def client(num_images: int, **keys) -> ClientDataModule:
    """A client with every second of the images; image n is all n, and its label is n % 3."""
    everyone = np.arange(2 * num_images)
    images_NCHW = np.broadcast_to(everyone.astype(np.uint8)[:, None, None, None], (2 * num_images, 1, 8, 8))
    arrays = ImageArrays(images_NCHW, everyone % 3)
    return ClientDataModule(arrays, everyone[::2], ImageArrays(images_NCHW[:7], everyone[:7] % 3), **keys)


def test_the_datamodule_trains_on_the_clients_own_images_each_once():
    module = client(9, batch_size=4)
    loader = module.train_dataloader()
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 3, 2]
    assert len(loader) == 3
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images.dtype == torch.float32
    numbers = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
    assert sorted(numbers.tolist()) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert torch.equal(labels, numbers % 3)


def test_the_datamodule_is_shuffled_for_each_epoch_by_its_seed():
    def orders(seed: int) -> list[list[int]]:
        loader = client(30, batch_size=30, seed=seed).train_dataloader()
        return [next(iter(loader))[0][:, 0, 0, 0].tolist() for _ in range(2)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


def test_the_datamodule_augments_training_images_only():
    module = client(20, augmentation="shift")
    trained = torch.cat([images for images, _ in module.train_dataloader()])
    assert any(len(image.unique()) == 2 for image in trained)
    validated = torch.cat([images for images, _ in module.val_dataloader()])
    assert all(len(image.unique()) == 1 for image in validated)


def test_the_datamodule_validates_on_the_test_images_in_order():
    batches = list(client(5, eval_batch_size=3).val_dataloader())
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1, 2, 0, 1, 2, 0]
