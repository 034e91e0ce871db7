"""Other test sets: hand-worked turns and shifts, keyed noise, and another data set with classes in another order."""

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.data.test_sets import test_set as make_set


@pytest.fixture
def dataset():
    """One 4 x 4 image, white in the right pixel of the top row."""
    images_NCHW = np.zeros((1, 1, 4, 4), dtype=np.uint8)
    images_NCHW[0, 0, 0, 3] = 255
    images = ImageArrays(images_NCHW, np.array([1]))
    return Dataset("one", images, images, num_classes=2, class_names=("a", "b"))


def white(images):
    return np.argwhere(images.images_NCHW[0, 0] > 200).tolist()


def test_images_turn_counter_clockwise_and_move_right_and_down(dataset):
    assert white(make_set("rotated:90", dataset, DataConfig(), 0)) == [[0, 0]]
    assert white(make_set("rotated:-90", dataset, DataConfig(), 0)) == [[3, 3]]
    assert white(make_set("shifted:-1", dataset, DataConfig(), 0)) == []
    images_NCHW = np.roll(dataset.test.images_NCHW, -2, axis=3)
    left = Dataset("one", dataset.train, ImageArrays(images_NCHW, np.array([1])), 2, ("a", "b"))
    assert white(make_set("shifted:2", left, DataConfig(), 0)) == [[2, 3]]


def test_noise_has_its_deviation_and_follows_the_seed():
    grey = ImageArrays(np.full((20, 1, 16, 16), 128, dtype=np.uint8), np.zeros(20, dtype=np.int64))
    dataset = Dataset("grey", grey, grey, num_classes=1, class_names=("a",))

    first, again, other = (make_set("noise:0.1", dataset, DataConfig(), seed).images_NCHW for seed in (0, 0, 1))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() == pytest.approx(25.5, rel=0.05)


def test_the_classes_of_another_data_set_are_matched_by_name(tiny_dataset, tmp_path):
    train, test = tiny_dataset.train, tiny_dataset.test
    arrays = {"x_train": train.images_NCHW, "y_train": train.labels_N, "x_test": test.images_NCHW}
    np.savez(tmp_path / "other.npz", **arrays, y_test=test.labels_N, class_names=np.array(["c", "a", "b"]))

    found = make_set(f"npz:{tmp_path / 'other.npz'}", tiny_dataset, DataConfig(), 0)

    assert np.array_equal(found.labels_N, (test.labels_N + 2) % 3)
    assert np.array_equal(found.images_NCHW, test.images_NCHW)


def test_a_test_set_that_does_not_fit_is_refused(dataset, tiny_folder, golden):
    (tiny_folder("other")).mkdir(exist_ok=True)
    refused = []
    for text in ("blurred:2", "noise:-1", "rotated:far", "npz:", "data:cifra10"):
        with pytest.raises(DataError) as error:
            make_set(text, dataset, DataConfig(), 0)
        refused.append(str(error.value))
    golden("\n".join(refused))
