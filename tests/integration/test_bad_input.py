"""Mistakes of a user: exit code 2, one line on stderr, and no file written."""

import gzip
import socket
from pathlib import Path

import numpy as np
import pytest

from fedvtc.commands.main import main

pytestmark = pytest.mark.integration

QUICK = ["placement.pool=inline", "run.rounds=1", "method.name=local", "partition.images_per_client=4", "--plain"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("FEDVTC_DATA", raising=False)


def contents(folder):
    """The bytes of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noise(*shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def write_npz(path, **changes):
    arrays = {
        "x_train": noise(20, 8, 8),
        "y_train": np.arange(20) % 2,
        "x_test": noise(4, 8, 8),
        "y_test": np.arange(4) % 2,
    }
    np.savez(path, **(arrays | changes))


def write_mnist(folder, num_bytes_lost):
    """Four IDX files of ten images of 8 x 8; the training images lack their last bytes."""
    folder.mkdir()
    for prefix in ("train", "t10k"):
        images = bytes([0, 0, 8, 3, *(0, 0, 0, 10), *(0, 0, 0, 8), *(0, 0, 0, 8)]) + bytes(640)
        labels = bytes([0, 0, 8, 1, *(0, 0, 0, 10)]) + bytes(range(10))
        lost = num_bytes_lost if prefix == "train" else 0
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images[: len(images) - lost]))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


@pytest.fixture
def refused(capsys, keys_of, golden):
    """A function: runs `fedvtc run` with words that it refuses; returns the key of the message.

    Asserts code 2, one line on stderr, and that no file was written; holds the line against messages.txt.
    """

    def run(*words):
        before = contents(Path())
        assert main(["run", *QUICK, *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert contents(Path()) == before
        (key,) = keys_of(printed.err)
        golden(printed.err)
        return key

    return run


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("partition.alhpa=1", "partition.alhpa"),
        ("run.rounds=many", "run.rounds"),
        ("run.seed=[1]", "run.seed"),
        ("partition.alpha=0", "partition.alpha"),
        ("partition.alpha=-1", "partition.alpha"),
        ("partition.alpha=nan", "partition.alpha"),
        ("run.participation=1.5", "run.participation"),
        ("data.name=minst", "data.name"),
        ("method.name=fedvct", "method.name"),
        ("population.backbones=[{name: resnet88, share: 1}]", "population.backbones[0].name"),
        ("population.backbones=[{name: resnet8, share: 0.5}, {name: cnn_2x8, share: 0.4}]", "population.backbones"),
        ("absent.yaml", "absent.yaml"),
        ("population.num_clients=5000", "population.num_clients"),
        ("data.image_size=4", "data.image_size"),
    ],
)
def test_a_wrong_value_names_its_key(refused, word, key):
    assert refused(word) == key


def test_a_wrong_value_in_a_file_has_file_and_line(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("run:\n  rounds: 3\npartition:\n  alpha: 0\n")
    assert refused("mine.yaml") == "partition.alpha"


def test_a_file_that_is_no_yaml_has_file_and_line(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("run: [1, 2\n")
    assert refused("mine.yaml") == "mine.yaml:2"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"x_train": noise(20, 64)}, "images.npz"),
        ({"x_train": noise(20, 8, 6)}, "data.image_size"),
        ({"x_test": noise(4, 9, 9)}, "data.image_size"),
        ({"x_test": noise(4, 3, 8, 8)}, "data.path=images.npz"),
        ({"y_train": np.zeros(19, int)}, "data.path=images.npz"),
        ({"y_test": np.full(4, -1)}, "data.path=images.npz"),
        ({"y_train": np.zeros(20)}, "images.npz"),
        ({"x_train": np.full((20, 8, 8), 300)}, "images.npz"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(refused, tmp_path, changes, key):
    write_npz(tmp_path / "images.npz", **changes)
    words = ("data.name=npz", "data.path=images.npz", "population.num_clients=2")
    assert refused(*words) == key.replace("images.npz", str(tmp_path / "images.npz"))


def test_a_data_file_that_is_absent_is_refused(refused, tmp_path):
    assert refused("data.name=npz", "data.path=absent.npz") == str(tmp_path / "absent.npz")


def test_a_data_set_that_is_absent_is_refused(refused):
    assert refused("data.name=mnist", "data.root=nowhere", "data.download=false") == "data.name=mnist"


def test_a_damaged_idx_file_is_refused(refused, tmp_path):
    write_mnist(tmp_path / "mnist", num_bytes_lost=3)
    assert refused("data.name=mnist", "data.root=.") == str(tmp_path / "mnist/train-images-idx3-ubyte.gz")


def test_a_truncated_gzip_file_is_refused(refused, tmp_path):
    write_mnist(tmp_path / "mnist", num_bytes_lost=0)
    path = tmp_path / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    assert refused("data.name=mnist", "data.root=.") == str(path)


def test_a_partition_of_another_federation_is_refused(refused, capsys):
    assert main(["run", *QUICK, "population.num_clients=2", "run.name=two"]) == 0
    capsys.readouterr()
    words = ["partition.kind=file", "partition.file=outputs/two/partition.npz", "population.num_clients=3"]
    assert refused(*words) == "outputs/two/partition.npz"


def test_a_folder_that_cannot_be_written_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("a regular file")
    assert refused("run.output_dir=file/sub") == "run.output_dir=file/sub"


def test_a_second_run_in_the_same_folder_is_refused(refused, capsys):
    words = ["population.num_clients=2", "run.name=mine"]
    assert main(["run", *QUICK, *words]) == 0
    capsys.readouterr()
    assert refused(*words) == "outputs/mine"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_cluster_out_of_reach_is_refused_soon(zygote, keys_of):
    for address in (f"127.0.0.1:{free_port()}", "nowhere", "no-such-host.invalid:1"):
        # Ray itself would retry for minutes.
        done = zygote.run("run", f"cluster.address={address}", "run.name=mine", timeout=40)
        assert (done.returncode, keys_of(done.stderr)) == (2, [f"cluster.address={address}"])
    assert not contents(Path())
