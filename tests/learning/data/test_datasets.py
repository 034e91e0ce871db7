import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import data_root, load_dataset

SHARED_DATA = (Path(__file__).parents[3] / "../shared/data").resolve()


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, theirs = load_dataset(DataConfig(name="digits")), load_digits()
    ours = [
        (image.tobytes(), label)
        for arrays in (dataset.train, dataset.test)
        for image, label in zip(arrays.images_NCHW, arrays.labels_N, strict=True)
    ]
    images = np.rint(theirs.images * (255 / 16)).astype(np.uint8)
    assert sorted(ours) == sorted((image.tobytes(), label) for image, label in zip(images, theirs.target, strict=True))


def test_digits_are_split_the_same_way_each_time_and_evenly_in_each_class():
    dataset, again = load_dataset(DataConfig()), load_dataset(DataConfig())
    assert np.array_equal(dataset.test.images_NCHW, again.test.images_NCHW)
    assert (dataset.num_channels, dataset.image_size, dataset.num_classes) == (1, 8, 10)
    train_counts, test_counts = (np.bincount(arrays.labels_N) for arrays in (dataset.train, dataset.test))
    assert train_counts.sum() + test_counts.sum() == 1797
    # 174 to 183 images of each class.
    assert np.abs(train_counts - 2 * test_counts).max() <= 2
    assert (dataset.train.images_NCHW.min(), dataset.train.images_NCHW.max()) == (0, 255)
    assert dataset.train.images_NCHW.dtype == np.uint8


def test_image_size_resizes_and_its_own_size_changes_nothing():
    plain, same, larger = (load_dataset(DataConfig(image_size=size)) for size in (None, 8, 16))
    assert np.array_equal(plain.train.images_NCHW, same.train.images_NCHW)
    assert larger.image_size == 16
    assert larger.test.images_NCHW.mean() == pytest.approx(plain.test.images_NCHW.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (DataConfig(name="mnsit"), "data.name"),
        (DataConfig(name="?"), "data.name"),
    ],
    ids=["near", "far"],
)
def test_a_wrong_config_is_refused_in_one_line(config, key, keys_of, golden):
    with pytest.raises(DataError) as caught:
        load_dataset(config)
    assert keys_of(caught.value) == [key]
    golden(caught.value)


def test_the_root_is_the_configs_then_the_environments_then_data(monkeypatch):
    monkeypatch.setenv("FEDVTC_DATA", "/from/environment")
    assert data_root(DataConfig(root="~/sets")) == Path.home() / "sets"
    assert data_root(DataConfig()) == Path("/from/environment")
    monkeypatch.delenv("FEDVTC_DATA")
    assert data_root(DataConfig()) == Path("data")
    # The home of an unknown user is a folder like any other.
    assert data_root(DataConfig(root="~no_such_user/sets")) == Path("~no_such_user/sets")


def test_a_file_in_the_home_of_an_unknown_user_is_absent(keys_of, golden):
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="npz", path="~no_such_user/a.npz"))
    assert keys_of(caught.value) == ["~no_such_user/a.npz"]
    golden(caught.value)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "torchvision", "lightning", "sklearn", "PIL", "ray"}
    program = f"import sys, fedvtc.learning.data; print(sorted({heavy!r} & set(sys.modules)))"
    path = str(Path(__file__).parents[3] / "src")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert done.stdout.strip() == "[]", done.stderr


def test_the_real_mnist():
    if not (SHARED_DATA / "mnist").is_dir():
        pytest.skip(f"no MNIST in {SHARED_DATA}")
    dataset = load_dataset(DataConfig(name="mnist", root=str(SHARED_DATA), download=False))
    assert dataset.train.images_NCHW.shape == (60_000, 1, 28, 28)
    assert dataset.test.images_NCHW.shape == (10_000, 1, 28, 28)
    assert np.bincount(dataset.train.labels_N).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.train.labels_N[:5].tolist() == [5, 0, 4, 1, 9]
    # The known mean of its training pixels.
    assert dataset.train.images_NCHW.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_the_real_beginning_of_cifar10():
    path = SHARED_DATA / "cifar10-prefix" / "cifar10_prefix.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    dataset = load_dataset(DataConfig(name="npz", path=str(path)))
    assert (dataset.num_channels, dataset.image_size, dataset.num_classes) == (3, 32, 10)
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird")
    # CIFAR-10's known channel means, 0.491, 0.482, 0.447, hold roughly for its beginning.
    assert dataset.train.images_NCHW.mean(axis=(0, 2, 3)) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=0.01)
