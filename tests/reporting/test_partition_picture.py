import numpy as np
import pytest
from PIL import Image

from fedvtc.reporting.partition_picture import partition_picture


def ink_share(path):
    """Returns the share of pixels that are not white."""
    with Image.open(path) as image:
        return float((np.asarray(image.convert("L")) < 250).mean())


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 2), (10, 10), (40, 26), (200, 10), (5, 200)])
def test_partitions_of_any_size_are_drawn_readably(tmp_path, num_clients, num_classes):
    rng = np.random.default_rng(0)
    counts_KC = rng.integers(0, 100, size=(num_clients, num_classes)) * (rng.random((num_clients, num_classes)) < 0.5)
    names = [f"class {label}" for label in range(num_classes)]
    path = tmp_path / "partition.png"
    partition_picture(counts_KC, path, names, [f"net{client % 3}" for client in range(num_clients)])
    with Image.open(path) as image:
        width, height = image.size
    assert 500 < width < 3000
    assert 300 < height < 2600
    assert 0.01 < ink_share(path) < 0.9


def test_counts_are_bubbles_and_shades_at_their_places(tmp_path):
    counts_KC = np.zeros((3, 6), dtype=int)
    counts_KC[1, 2] = 7
    pictures = []
    for num_times in (1, 20):
        partition_picture(
            counts_KC.repeat(num_times, axis=0), tmp_path / "p.png", list("abcdef"), ["cnn"] * 3 * num_times
        )
        with Image.open(tmp_path / "p.png") as image:
            pictures.append(np.asarray(image).astype(int))
    for colour, pixels_HWC, (width, height) in zip(
        [(156, 195, 234), (8, 48, 107)], pictures, [(468, 162), (760, 560)], strict=True
    ):
        rows, columns = np.nonzero((abs(pixels_HWC[:, :630] - colour) < 4).all(axis=2))
        # Below the title, right of the labels of clients, if there are any.
        assert rows.mean() - 71 == pytest.approx(1.5 / 3 * height, abs=2)
        left = columns.mean() - 2.5 / 6 * width
        assert 60 < left < 140


def test_more_images_are_more_ink(tmp_path):
    counts_KC = np.zeros((6, 6), dtype=int)
    counts_KC[0, 0] = 50
    shares = []
    for held in (1, 6):
        counts_KC[:, :held] = 50
        partition_picture(counts_KC, tmp_path / "p.png", list("abcdef"), ["cnn"] * 6)
        shares.append(ink_share(tmp_path / "p.png"))
    assert shares[1] > shares[0] + 0.02
