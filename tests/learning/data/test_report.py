"""The data report: facts, odd things, and the hash of images and labels."""

import dataclasses
import json

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig
from fedvtc.learning.data import DataReport, Dataset, ImageArrays, load_dataset
from fedvtc.learning.data.pixels import count_shared


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def dataset():
    train = ImageArrays(images(6, 1, 4, 4), np.array([0, 1, 1, 0, 2, 2]))
    return Dataset("own", train, ImageArrays(images(3, 1, 4, 4, seed=1), np.array([0, 1, 2])), 3, ("a", "b", "c"))


def test_facts_by_hand(dataset):
    train = dataclasses.replace(dataset.train, images_NCHW=2 * np.arange(96, dtype=np.uint8).reshape(6, 1, 4, 4))
    report = DataReport.of(dataclasses.replace(dataset, train=train, notes=("read twice",), groups_N=np.arange(6) // 3))
    described = json.loads(json.dumps(report.as_dict()))
    assert len(described.pop("hash")) == 64
    assert described == {
        "images": {"train": 6, "test": 3},
        "channels": 1,
        "side": 4,
        "dtype": "uint8",
        "pixels": {"least": 0, "mean": 95.0, "largest": 190},
        "groups": 2,
        "classes": {name: {"train": 2, "test": 1} for name in "abc"},
        "notes": ["read twice"],
    }
    line = report.line()
    assert "\n" not in line
    assert line == (
        "data: 6 training images of 2 groups and 3 test images, 3 classes, 4 x 4 grey, uint8,"
        " pixels 0 to 190, mean 95.0; read twice"
    )


def test_odd_data_are_said(dataset, golden):
    assert DataReport.of(dataset).notes == ()
    shared = images(4, 1, 4, 4)
    shared[3] = 7
    odd = dataclasses.replace(
        dataset, num_classes=6, class_names=tuple("abcdef"), test=ImageArrays(shared, np.array([0, 1, 1, 1]))
    )
    golden("\n".join(DataReport.of(odd).notes))


@pytest.mark.parametrize("shape", [(200, 1, 28, 28), (200, 3, 3, 3)])
def test_shared_images_are_counted_exactly(shape):
    train, test = images(*shape), images(*shape, seed=1)
    assert count_shared(test, train) == 0
    test[5], test[7], test[9] = train[3], train[3], train[150]
    # Each differs from a training image in one pixel.
    test[20:60] = train[20:60]
    for number in range(20, 60):
        test[number].flat[number % test[0].size] ^= 1 << number % 8
    assert count_shared(test, train) == 3
    assert count_shared(images(5, 1, 2, 2), train) == 0


def test_equal_images_of_several_classes_are_counted(dataset, golden):
    doubled = dataset.train.images_NCHW.copy()
    # Images 0 and 1 have the classes 0 and 1, images 4 and 5 both have class 2.
    doubled[1], doubled[5] = doubled[0], doubled[4]
    train = dataclasses.replace(dataset.train, images_NCHW=doubled)
    golden("\n".join(DataReport.of(dataclasses.replace(dataset, train=train)).notes))


def test_a_split_that_may_be_inverted_is_said(dataset, golden):
    dark, bright = (images(count, 1, 4, 4) // 4 for count in (6, 3))
    train = dataclasses.replace(dataset.train, images_NCHW=dark)
    test = dataclasses.replace(dataset.test, images_NCHW=255 - bright)
    golden("\n".join(DataReport.of(dataclasses.replace(dataset, train=train, test=test)).notes))


def test_the_hash_changes_with_any_pixel_label_or_shape(dataset):
    def another(split, **changes):
        return dataclasses.replace(dataset, **{split: dataclasses.replace(getattr(dataset, split), **changes)})

    pixel = dataset.test.images_NCHW.copy()
    pixel[2, 0, 3, 3] ^= 1
    others = [
        dataset,
        another("test", images_NCHW=pixel),
        another("test", labels_N=np.array([0, 2, 1])),
        another("train", images_NCHW=dataset.train.images_NCHW[::-1]),
        another("train", labels_N=np.array([1, 0, 1, 0, 2, 2])),
        another("train", images_NCHW=dataset.train.images_NCHW.reshape(6, 1, 2, 8)),
    ]
    hashes = [DataReport.of(other).hash for other in others]
    assert len(set(hashes)) == len(others)
    # Names and the order in memory do not count.
    fortran = another("train", images_NCHW=np.asfortranarray(dataset.train.images_NCHW))
    assert DataReport.of(dataclasses.replace(fortran, class_names=tuple("xyz"))).hash == hashes[0]


def test_the_report_of_the_digits(golden):
    golden(DataReport.of(load_dataset(DataConfig())).line())
    golden(DataReport.of(load_dataset(DataConfig(image_size=16))).line())
