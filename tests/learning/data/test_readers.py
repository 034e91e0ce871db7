import gzip
from pathlib import Path

import numpy as np
import pytest

from fedvtc.errors import DataError
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
