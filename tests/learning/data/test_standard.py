import gzip
import hashlib
import pickle
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision.datasets import CIFAR10, SVHN

from fedvtc.config.schema import DataConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import fetching, load_dataset


@pytest.fixture(autouse=True)
def no_network(monkeypatch) -> None:
    """Sends every download to a closed port."""
    send_downloads_to("127.0.0.1:9", monkeypatch)


def send_downloads_to(address: str, monkeypatch) -> None:
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{address}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # urllib reads the variables once and caches them.
    monkeypatch.setattr(urllib.request, "_opener", None)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def write_idx_set(folder: Path, prefixes: tuple[str, str], images_NHW: np.ndarray, labels_N: np.ndarray, pack=bytes):
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".gz" if pack is gzip.compress else ""
    for prefix in prefixes:
        (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images_NHW)))
        (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels_N)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("mnist", ""),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("kmnist", "KMNIST/raw"),
    ],
)
def test_idx_sets_are_found_where_people_and_torchvision_put_them(tmp_path, name, folder, pack):
    images_NHW = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)
    write_idx_set(tmp_path / folder, ("train", "t10k"), images_NHW, np.array([9, 0, 3, 3], np.uint8), pack)
    dataset = load_dataset(DataConfig(name=name, root=str(tmp_path)))
    assert np.array_equal(dataset.train.images_NCHW[:, 0], images_NHW)
    assert dataset.test.labels_N.tolist() == [9, 0, 3, 3]
    assert (dataset.num_classes, len(dataset.class_names)) == (10, 10)


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist"])
def test_files_in_the_root_itself_are_mnist_and_none_of_its_relatives(tmp_path, name, keys_of):
    write_idx_set(tmp_path, ("train", "t10k"), np.zeros((1, 2, 2), np.uint8), np.array([1], np.uint8))
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name=name, root=str(tmp_path), download=False))
    assert keys_of(caught.value) == [f"data.name={name}"]


def test_the_folder_of_the_name_goes_before_the_root_itself(tmp_path):
    images_NHW = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    for folder, label in ((tmp_path, 1), (tmp_path / "mnist", 2)):
        write_idx_set(folder, ("train", "t10k"), images_NHW, np.array([label], np.uint8))
    assert load_dataset(DataConfig(name="mnist", root=str(tmp_path))).train.labels_N.tolist() == [2]


def test_emnist_is_turned_upright(tmp_path):
    stored = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    prefixes = ("emnist-balanced-train", "emnist-balanced-test")
    write_idx_set(tmp_path / "emnist", prefixes, stored, np.array([46], np.uint8), gzip.compress)
    dataset = load_dataset(DataConfig(name="emnist", root=str(tmp_path)))
    assert dataset.train.images_NCHW[0, 0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert dataset.train.images_NCHW.flags.c_contiguous
    assert dataset.num_classes == 47
    assert dataset.class_names[46] == "t"


def test_a_label_outside_the_classes_is_refused(tmp_path, keys_of, golden):
    write_idx_set(tmp_path, ("train", "t10k"), np.zeros((2, 2, 2), np.uint8), np.array([0, 10], np.uint8))
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="mnist", root=str(tmp_path)))
    assert keys_of(caught.value) == ["data.name=mnist"]
    golden(caught.value)


def test_cifar10_binary_is_preferred(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        (folder / name).write_bytes(bytes([number % 5]) + bytes([10 * number]) * 3072)
    (folder / "batches.meta.txt").write_text("\n".join(f"class{n}" for n in range(10)) + "\n\n")
    dataset = load_dataset(DataConfig(name="cifar10", root=str(tmp_path)))
    assert dataset.train.labels_N.tolist() == [0, 1, 2, 3, 4]
    assert dataset.train.images_NCHW[:, 2, 31, 31].tolist() == [0, 10, 20, 30, 40]
    assert dataset.test.labels_N.tolist() == [0]
    assert dataset.test.images_NCHW.max() == 50
    assert dataset.class_names[9] == "class9"


def test_cifar100_binary_gives_the_fine_classes(tmp_path):
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(bytes([19, 99]) + bytes(range(256)) * 12)
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine{n}" for n in range(100)))
    dataset = load_dataset(DataConfig(name="cifar100", root=str(tmp_path)))
    assert dataset.test.labels_N.tolist() == [99]
    assert dataset.num_classes == 100
    assert dataset.train.images_NCHW[0, 0, 1, 2] == 34


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("under", ["", "cifar10"])
def test_cifar10_as_torchvision_keeps_it(tmp_path, monkeypatch, under):
    folder = tmp_path / under / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = (np.arange(3072) % 256).astype(np.uint8)
    for name, content in {
        "data_batch_1": {"data": pixels[None], "labels": [4]},
        "test_batch": {"data": pixels[None, ::-1], "labels": [4]},
        "batches.meta": {"label_names": [f"class{n}" for n in range(10)]},
    }.items():
        (folder / name).write_bytes(pickle.dumps(content))
    # torchvision's MD5 sums belong to the real files.
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5(folder / "data_batch_1")]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    dataset = load_dataset(DataConfig(name="cifar10", root=str(tmp_path)))
    assert np.array_equal(dataset.train.images_NCHW, pixels.reshape(1, 3, 32, 32))
    assert np.array_equal(dataset.test.images_NCHW, pixels[::-1].reshape(1, 3, 32, 32))
    assert (dataset.train.labels_N.tolist(), dataset.test.labels_N.tolist()) == ([4], [4])
    assert dataset.class_names[4] == "class4"


@pytest.mark.parametrize("under", ["", "svhn"])
def test_svhn_as_distributed(tmp_path, monkeypatch, under):
    (tmp_path / under).mkdir(exist_ok=True)
    images_HWCN = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2)).astype(np.uint8)
    files = {}
    for split in ("train", "test"):
        path = tmp_path / under / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": images_HWCN, "y": np.array([[10], [3]], np.uint8)})
        files[split] = ["http://nowhere/", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", files)
    dataset = load_dataset(DataConfig(name="svhn", root=str(tmp_path)))
    assert np.array_equal(dataset.train.images_NCHW, images_HWCN.transpose(3, 2, 0, 1))
    assert dataset.train.labels_N.tolist() == [0, 3], "SVHN writes the digit 0 as 10"


DOWNLOADED = ["mnist", "fashion-mnist", "kmnist", "emnist", "svhn", "cifar10", "cifar100"]


@pytest.mark.parametrize("name", [*DOWNLOADED, "tiny-imagenet"])
@pytest.mark.parametrize("download", [True, False])
def test_an_absent_data_set_is_one_line(tmp_path, monkeypatch, capsys, name, download, keys_of, golden):
    monkeypatch.setenv("FEDVTC_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name=name, download=download))
    assert keys_of(caught.value) == [f"data.name={name}"]
    if not download:
        # The reason of a failed download is a library's text.
        golden(caught.value)
    assert capsys.readouterr().out == ""


def test_an_incomplete_set_counts_as_absent(tmp_path, keys_of):
    write_idx_set(tmp_path / "mnist", ("train",), np.zeros((1, 2, 2), np.uint8), np.array([1], np.uint8))
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="mnist", root=str(tmp_path), download=False))
    assert keys_of(caught.value) == ["data.name=mnist"]


def test_a_root_that_cannot_be_written_is_the_same_one_line(tmp_path, keys_of):
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(name="mnist", root=str(tmp_path / "data")))
    assert keys_of(caught.value) == ["data.name=mnist"]


def test_a_silent_server_is_given_up_after_the_timeout(tmp_path, monkeypatch, keys_of):
    monkeypatch.setattr(fetching, "NETWORK_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        send_downloads_to(f"127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        start_s = time.perf_counter()
        with pytest.raises(DataError) as caught:
            load_dataset(DataConfig(name="cifar10", root=str(tmp_path)))
        assert keys_of(caught.value) == ["data.name=cifar10"]
        assert 0.3 <= time.perf_counter() - start_s < 5.0
    assert socket.getdefaulttimeout() is None
