import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fedvtc.reporting.figures import GRID_GAP, partition_picture, sample_grid


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


def test_names_are_drawn_literally(tmp_path):
    """A class may have a name that matplotlib cannot parse as mathematics."""
    path = tmp_path / "partition.png"
    shares = []
    for sign in ("$", "S"):
        backbones = [f"{sign}\\net_{sign}", "cnn"]
        partition_picture(np.ones((2, 2), dtype=int), path, [f"{sign}\\frac{sign}", f"5{sign} and 10{sign}"], backbones)
        shares.append(ink_share(path))
    assert shares[0] == pytest.approx(shares[1], rel=0.02)


def test_more_images_are_more_ink(tmp_path):
    counts_KC = np.zeros((6, 6), dtype=int)
    counts_KC[0, 0] = 50
    shares = []
    for held in (1, 6):
        counts_KC[:, :held] = 50
        partition_picture(counts_KC, tmp_path / "p.png", list("abcdef"), ["cnn"] * 6)
        shares.append(ink_share(tmp_path / "p.png"))
    assert shares[1] > shares[0] + 0.02


def test_pyplot_is_not_touched():
    code = "import sys, fedvtc.reporting.figures; print('matplotlib.pyplot' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("num_channels", [1, 3])
def test_a_grid_has_one_row_per_label_and_every_image_at_its_position(tmp_path, num_channels):
    rng = np.random.default_rng(1)
    images_NCHW = rng.integers(0, 256, size=(6, num_channels, 28, 28), dtype=np.uint8)
    sample_grid(images_NCHW, tmp_path / "grid.png", ["cat", "a longer name"])
    with Image.open(tmp_path / "grid.png") as image:
        pixels_HWC = np.asarray(image)
    step = 2 * 28 + GRID_GAP
    assert pixels_HWC.shape[0] == GRID_GAP + 2 * step
    left = pixels_HWC.shape[1] - 3 * step
    for index, image_CHW in enumerate(images_NCHW):
        row, column = divmod(index, 3)
        top, side = GRID_GAP + row * step, left + column * step
        cell_HWC = pixels_HWC[top : top + 56 : 2, side : side + 56 : 2]
        assert (cell_HWC == image_CHW.transpose(1, 2, 0)).all()
    for row in range(2):
        assert (pixels_HWC[row * step : (row + 1) * step, : left - GRID_GAP] < 128).any(), f"row {row} has no label"


def test_grids_that_cannot_be_laid_out_are_refused(tmp_path):
    images_NCHW = np.zeros((5, 1, 8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="5 images do not fill 2 rows evenly"):
        sample_grid(images_NCHW, tmp_path / "grid.png", ["a", "b"])
    with pytest.raises(ValueError, match="do not fill 0 rows"):
        sample_grid(images_NCHW, tmp_path / "grid.png", [])
    with pytest.raises(ValueError, match="uint8"):
        sample_grid(images_NCHW.astype(np.float32), tmp_path / "grid.png", ["a"])
    assert list(tmp_path.iterdir()) == []
