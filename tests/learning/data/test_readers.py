import gzip
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import load_dataset
from fedvtc.learning.data.readers import read_cifar_binary, read_idx, read_idx_pair

IMAGES = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes([0, 1, 2, 3, 4, 255, 10, 20, 30, 40, 50, 60])
LABELS = bytes.fromhex("00000801 00000002 07 00")
GZIPPED = gzip.compress(IMAGES, mtime=0)


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images-idx3-ubyte", tmp_path / "labels-idx1-ubyte"
    images.write_bytes(IMAGES)
    labels.write_bytes(LABELS)
    return images, labels


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_by_hand_plain_and_gzipped(pair, pack):
    for path in pair:
        path.write_bytes(pack(path.read_bytes()))
    images_NCHW, labels_N = read_idx_pair(*pair)
    assert images_NCHW.tolist() == [[[[0, 1, 2], [3, 4, 255]]], [[[10, 20, 30], [40, 50, 60]]]]
    assert images_NCHW.dtype == np.uint8
    assert labels_N.tolist() == [7, 0]
    assert labels_N.dtype == np.int64


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(IMAGES[:-1], id="a byte too few"),
        pytest.param(IMAGES + b"\0", id="a byte too many"),
        pytest.param(IMAGES[:10], id="half a header"),
        pytest.param(LABELS, id="labels"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"", id="empty"),
        pytest.param(GZIPPED[:-5], id="half gzipped"),
        pytest.param(GZIPPED[:-9] + b"12345678\0", id="wrong checksum"),
        # The size of the header must not be allocated.
        pytest.param(bytes.fromhex("00000803") + b"\xff" * 12, id="a huge header"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, keys_of, golden):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path, 3)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def test_another_number_of_labels_than_images_is_refused(pair, keys_of, golden):
    pair[1].write_bytes(bytes.fromhex("00000801 00000003 07 00 01"))
    with pytest.raises(DataError) as caught:
        read_idx_pair(*pair)
    assert keys_of(caught.value) == [str(pair[1])]
    golden(caught.value)


def test_cifar_records_by_hand(tmp_path):
    pixels = np.arange(3072) % 251
    record = bytes(pixels.astype(np.uint8))
    (tmp_path / "a").write_bytes(b"\x03" + record)
    (tmp_path / "b").write_bytes(b"\x05" + record[::-1] + b"\x06" + record)
    images_NCHW, labels_N = read_cifar_binary([tmp_path / "a", tmp_path / "b"], 1)
    assert labels_N.tolist() == [3, 5, 6]
    assert images_NCHW.shape == (3, 3, 32, 32)
    assert images_NCHW[0, 1, 2, 3] == pixels[1024 + 2 * 32 + 3]
    (tmp_path / "c").write_bytes(b"\x13\x63" + record)
    images_NCHW, labels_N = read_cifar_binary([tmp_path / "c"], 2)
    assert labels_N.tolist() == [0x63]
    assert images_NCHW[0, 0, 0, 5] == 5


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3073 * 2 - 1)], ids=len)
def test_a_truncated_cifar_file_is_refused(tmp_path, content, keys_of, golden):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_cifar_binary([path], 1)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def npz(folder: Path, **changes) -> DataConfig:
    """A whole .npz of three 4 x 4 training images and two test images, with `changes`; None removes an array."""
    arrays = {
        "x_train": np.zeros((3, 4, 4), np.uint8),
        "y_train": np.array([0, 1, 2]),
        "x_test": np.zeros((2, 4, 4), np.uint8),
        "y_test": np.array([0, 1]),
    } | changes
    path = folder / "data.npz"
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return DataConfig(name="npz", path=str(path))


@pytest.mark.parametrize(
    ("shape", "num_channels"),
    [((2, 4, 4), 1), ((2, 4, 4, 1), 1), ((2, 1, 4, 4), 1), ((2, 4, 4, 3), 3), ((2, 3, 4, 4), 3)],
)
def test_npz_in_each_layout(tmp_path, shape, num_channels):
    marked = np.zeros(shape, np.uint8)
    # Image 1, row 2, column 3, last channel.
    where = {3: (1, 2, 3), 4: (1, -1, 2, 3) if shape[1] in (1, 3) else (1, 2, 3, -1)}[len(shape)]
    marked[where] = 200
    dataset = load_dataset(npz(tmp_path, x_train=marked, y_train=np.array([0, 1]), x_test=marked))
    assert dataset.train.images_NCHW.shape == (2, num_channels, 4, 4)
    assert dataset.train.images_NCHW.dtype == np.uint8
    assert np.argwhere(dataset.train.images_NCHW).tolist() == [[1, num_channels - 1, 2, 3]]
    assert (dataset.num_channels, dataset.image_size) == (num_channels, 4)


def test_npz_floats_labels_in_a_column_and_class_names(tmp_path):
    floats = np.zeros((3, 4, 4), np.float32)
    floats[0, 0, :3] = [1.0, 0.5, 0.001]
    names = np.array(["cat", "dog", "owl"])
    dataset = load_dataset(
        npz(tmp_path, x_train=floats, y_train=np.array([[2], [1], [0]], np.uint8), class_names=names)
    )
    assert dataset.train.images_NCHW[0, 0, 0].tolist() == [255, 128, 0, 0]
    assert dataset.train.labels_N.tolist() == [2, 1, 0]
    assert dataset.train.labels_N.dtype == np.int64
    assert dataset.class_names == ("cat", "dog", "owl")
    assert load_dataset(npz(tmp_path)).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"y_test": None}, "{path}"),
        ({"x_train": np.zeros((3, 4), np.uint8)}, "{path}"),
        ({"x_train": np.zeros((3, 4, 4, 2), np.uint8)}, "{path}"),
        ({"x_train": np.full((3, 4, 4), 2.0)}, "{path}"),
        ({"x_train": np.full((3, 4, 4), np.nan)}, "{path}"),
        ({"x_train": np.zeros((3, 4, 4), np.int64)}, "{path}"),
        ({"y_train": np.array([0.0, 1.0, 2.0])}, "{path}"),
        ({"y_train": np.array([{}, {}, {}])}, "{path}"),
        ({"y_train": np.array([0, 1])}, "data.path={path}"),
        ({"y_train": np.array([0, -1, 2])}, "data.path={path}"),
        ({"class_names": np.array(["one", "two"])}, "data.path={path}"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.array([], int)}, "data.path={path}"),
        ({"x_test": np.zeros((2, 4, 4, 3), np.uint8)}, "data.path={path}"),
        ({"x_test": np.zeros((2, 5, 5), np.uint8)}, "data.image_size"),
    ],
)
def test_an_npz_with_wrong_arrays_is_refused_in_one_line(tmp_path, changes, key, keys_of, golden):
    config = npz(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        load_dataset(config)
    assert keys_of(caught.value) == [key.format(path=config.path)]
    golden(caught.value)


def test_a_file_that_is_not_an_npz_is_refused(tmp_path, keys_of, golden):
    path = tmp_path / "data.npz"
    for content in (b"", b"PK\x03\x04", b"hello", Path(npz(tmp_path).path).read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="npz", path=str(path)))
        assert keys_of(caught.value) == [str(path)]
    golden(caught.value)
    for given, key in ((str(tmp_path / "absent.npz"), str(tmp_path / "absent.npz")), (None, "data.path")):
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="npz", path=given))
        assert keys_of(caught.value) == [key]
        golden(caught.value)
