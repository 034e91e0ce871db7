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
# Without the time in its header: it names two of the tests, and every process must know them by one name.
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
    ("content", "message"),
    [
        (IMAGES[:-1], "expected 28 bytes, found 27"),
        (IMAGES + b"\0", "expected 28 bytes, found 29"),
        (IMAGES[:10], "expected a header of 16 bytes, found 10"),
        (LABELS, "begins with 00000803, found 00000801"),
        (b"<html>", "begins with 00000803, found 3c68746d"),
        (b"", "found no byte"),
        (GZIPPED[:-5], "cannot be read"),
        (GZIPPED[:-9] + b"12345678\0", "cannot be read"),
        # A header that claims (2^32 - 1)^3 bytes must not be believed.
        (bytes.fromhex("00000803") + b"\xff" * 12, f"expected {(2**32 - 1) ** 3 + 16} bytes, found 16"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_idx(path, 3)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_another_number_of_labels_than_images_is_refused(pair):
    pair[1].write_bytes(bytes.fromhex("00000801 00000003 07 00 01"))
    with pytest.raises(DataError, match=f"{pair[1]}: holds 3 labels for the 2 images of images-idx3-ubyte"):
        read_idx_pair(*pair)


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


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3073 * 2 - 1)])
def test_a_cut_cifar_file_is_refused(tmp_path, content):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(
        DataError, match=f"data_batch_1.bin: expected records of 3073 bytes, found {len(content)} bytes"
    ):
        read_cifar_binary([tmp_path / "data_batch_1.bin"], 1)


def npz(folder: Path, **changes) -> DataConfig:
    """A whole .npz of three 4 x 4 training images and two test images, with `changes`; None takes an array out."""
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
    ("changes", "message"),
    [
        ({"y_test": None}, r"lacks y_test \(it holds x_train, y_train, x_test\)"),
        ({"x_train": np.zeros((3, 4), np.uint8)}, r"x_train has the shape \(3, 4\)"),
        ({"x_train": np.zeros((3, 4, 4, 2), np.uint8)}, r"x_train has the shape \(3, 4, 4, 2\)"),
        ({"x_train": np.full((3, 4, 4), 2.0)}, "x_train is neither uint8 nor float in"),
        ({"x_train": np.full((3, 4, 4), np.nan)}, "x_train is neither uint8 nor float in"),
        ({"x_train": np.zeros((3, 4, 4), np.int64)}, "but int64"),
        ({"y_train": np.array([0.0, 1.0, 2.0])}, "y_train is float64"),
        ({"y_train": np.array([{}, {}, {}])}, "allow_pickle"),
        ({"y_train": np.array([0, 1])}, "3 training images and 2 labels"),
        ({"y_train": np.array([0, -1, 2])}, "training labels run from -1 to 2. 0 to 2 would work"),
        (
            {"class_names": np.array(["one", "two"])},
            "training labels run from 0 to 2. 0 to 1 would work, for 2 classes",
        ),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.array([], int)}, "0 test images and 0 labels"),
        ({"x_test": np.zeros((2, 4, 4, 3), np.uint8)}, "differ in channels"),
        (
            {"x_test": np.zeros((2, 5, 5), np.uint8)},
            "data.image_size: images of 4 x 4, 5 x 5 are not square of one size",
        ),
    ],
)
def test_an_npz_that_does_not_do_is_refused_in_one_line(tmp_path, changes, message):
    config = npz(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as raised:
        load_dataset(config)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    for content in (b"", b"PK\x03\x04", b"hello", Path(npz(tmp_path).path).read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path}: cannot be read as .npz"):
            load_dataset(DataConfig(name="npz", path=str(path)))
    with pytest.raises(DataError, match="no such file"):
        load_dataset(DataConfig(name="npz", path=str(tmp_path / "absent.npz")))
    with pytest.raises(DataError, match=r"data\.path: data\.name=npz needs it"):
        load_dataset(DataConfig(name="npz"))
