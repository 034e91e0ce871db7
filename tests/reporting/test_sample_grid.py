import numpy as np
import pytest
from PIL import Image

from fedvtc.reporting.sample_grid import GRID_GAP, sample_grid


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
