"""What a user can get wrong: exit code 2, one clear line on stderr, and nothing written."""

import gzip
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedvtc.commands.main import main

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "src"
QUICK = ["placement.pool=inline", "run.rounds=1", "method.name=local", "partition.images_per_client=4", "--plain"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("FEDVTC_DATA", raising=False)


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_npz(path, **changes):
    arrays = {
        "x_train": np.zeros((20, 8, 8), np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": np.zeros((4, 8, 8), np.uint8),
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


def refused(capsys, *words):
    """The one line with which `fedvtc run` refuses; asserts that nothing was written."""
    before = contents(Path())
    assert main(["run", *QUICK, *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert contents(Path()) == before
    (line,) = printed.err.splitlines()
    assert line.startswith("fedvtc: ")
    return line.removeprefix("fedvtc: ")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("partition.alhpa=1", "partition.alhpa: unknown key (command line). Did you mean partition.alpha?"),
        ("run.rounds=many", "run.rounds: must be a whole number of at least 1, not 'many' (command line)."),
        ("run.seed=[1]", "run.seed: must be a whole number, not [1] (command line)."),
        ("partition.alpha=0", "partition.alpha: must be a number above 0, not 0 (command line)."),
        ("partition.alpha=-1", "partition.alpha: must be a number above 0, not -1 (command line)."),
        ("partition.alpha=nan", "partition.alpha: must be a number above 0, not 'nan' (command line)."),
        ("run.participation=1.5", "run.participation: must be a number above 0 and at most 1, not 1.5 (command line)."),
        ("data.name=minst", "data.name: unknown data set 'minst' (command line). Did you mean mnist?"),
        ("method.name=fedvct", "method.name: unknown method 'fedvct' (command line). Did you mean fedvtc?"),
        (
            "population.backbones=[{name: resnet88, share: 1}]",
            "population.backbones[0].name: unknown backbone 'resnet88' (command line). Did you mean resnet8?",
        ),
        (
            "population.backbones=[{name: resnet8, share: 0.5}, {name: cnn_2x8, share: 0.4}]",
            "population.backbones: shares must add up to 1, not 0.9 (command line). "
            "Equal shares of 2 backbones are 0.5.",
        ),
        ("absent.yaml", "absent.yaml: no such file (command line). . is empty."),
        (
            "population.num_clients=5000",
            "population.num_clients: 5000 clients cannot share 1201 training images. At most 600 clients would work.",
        ),
        ("data.image_size=4", "data.image_size: 4 pixels are too few for a backbone. Set data.image_size=8."),
    ],
)
def test_a_wrong_value(capsys, word, line):
    assert refused(capsys, word) == line


def test_a_wrong_value_in_a_file_is_placed(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("run:\n  rounds: 3\npartition:\n  alpha: 0\n")
    assert refused(capsys, "mine.yaml") == "partition.alpha: must be a number above 0, not 0 (mine.yaml:4)."


def test_a_file_that_is_no_yaml(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("run: [1, 2\n")
    assert refused(capsys, "mine.yaml").startswith("mine.yaml:2: ")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"x_train": np.zeros((20, 64), np.uint8)}, "images.npz: x_train has the shape (20, 64). N,H,W or N,H,W,C or "),
        ({"x_train": np.zeros((20, 8, 6), np.uint8)}, "data.image_size: images of 6 x 8, 8 x 8 are not square of one "),
        ({"x_test": np.zeros((4, 9, 9), np.uint8)}, "data.image_size: images of 8 x 8, 9 x 9 are not square of one "),
        (
            {"x_test": np.zeros((4, 3, 8, 8), np.uint8)},
            "data.path=images.npz: training and test images differ in channels. ",
        ),
        ({"y_train": np.zeros(19, int)}, "data.path=images.npz: 20 training images and 19 labels. "),
        ({"y_test": np.full(4, -1)}, "data.path=images.npz: test labels run from -1 to -1. 0 to 1 would work, for 2 c"),
        ({"y_train": np.zeros(20)}, "images.npz: y_train is float64 of the shape (20,). One whole number per image "),
        ({"x_train": np.full((20, 8, 8), 300)}, "images.npz: x_train is neither uint8 nor float in [0, 1], but int64."),
    ],
)
def test_arrays_that_do_not_fit(capsys, tmp_path, changes, start):
    write_npz(tmp_path / "images.npz", **changes)
    assert refused(capsys, "data.name=npz", "data.path=images.npz", "population.num_clients=2").startswith(start)


def test_a_data_file_that_is_absent(capsys):
    line = refused(capsys, "data.name=npz", "data.path=absent.npz")
    assert line == "absent.npz: no such file. data.path must name an .npz file."


def test_a_data_set_that_is_absent(capsys, tmp_path):
    line = refused(capsys, "data.name=mnist", "data.root=nowhere", "data.download=false")
    assert line.startswith(f"data.name=mnist: not found in {tmp_path}/nowhere/mnist, ")
    assert line.endswith("or set data.root or FEDVTC_DATA to the folder that holds them.")


def test_a_damaged_idx_file(capsys, tmp_path):
    write_mnist(tmp_path / "mnist", num_bytes_lost=3)
    line = refused(capsys, "data.name=mnist", "data.root=.")
    found = "expected 656 bytes, found 653. Delete it and fetch it again, or mend it."
    assert line == f"mnist/train-images-idx3-ubyte.gz: {found}"


def test_a_truncated_gzip_file(capsys, tmp_path):
    write_mnist(tmp_path / "mnist", num_bytes_lost=0)
    path = tmp_path / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    assert refused(capsys, "data.name=mnist", "data.root=.").startswith(f"{path.relative_to(tmp_path)}: cannot be read")


def test_a_partition_of_another_federation(capsys, tmp_path):
    assert main(["run", *QUICK, "population.num_clients=2", "run.name=two"]) == 0
    capsys.readouterr()
    words = ["partition.kind=file", "partition.file=outputs/two/partition.npz", "population.num_clients=3"]
    start = "outputs/two/partition.npz: holds 2 clients, population.num_clients is 3. Set that to 2."
    assert refused(capsys, *words) == start


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("a regular file")
    line = refused(capsys, "run.output_dir=file/sub")
    assert line.startswith("run.output_dir=file/sub: cannot be written (Not a directory).")


def test_a_second_run_in_the_same_folder(capsys):
    words = ["population.num_clients=2", "run.name=mine"]
    assert main(["run", *QUICK, *words]) == 0
    capsys.readouterr()
    # `refused` holds the folder against what it was, byte for byte.
    assert refused(capsys, *words) == ("outputs/mine: already holds a run. Choose another run.name, or leave it out.")


def in_a_process(*command):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


ONE_BY_ONE = """
import sys, time
from fedvtc.commands.main import main

for address in sys.argv[1:]:
    began_s = time.monotonic()
    code = main(["run", f"cluster.address={address}", "run.name=mine"])
    print(code, time.monotonic() - began_s)
"""


def test_a_cluster_out_of_reach_is_told_soon():
    addresses = [f"127.0.0.1:{free_port()}", "nowhere", "no-such-host.invalid:1"]
    done = in_a_process("-c", ONE_BY_ONE, *addresses)
    for address, error, told in zip(addresses, done.stderr.splitlines(), done.stdout.splitlines(), strict=True):
        assert error.startswith(f"fedvtc: cluster.address={address}: no Ray cluster answers")
        code, took_s = told.split()
        assert code == "2"
        assert float(took_s) < 40  # Of which ten and more are imports, on a busy machine.
    assert not contents(Path())


def test_more_actors_than_fit():
    done = in_a_process(
        "-m", "fedvtc", "run", "placement.clients_per_actor=1", "cluster.num_cpus=2", "population.num_clients=3"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1:] == [
        "fedvtc: placement: 3 actors x 1 CPU need 3 CPUs; the cluster, as it is now, has 2. "
        "Set placement.clients_per_actor=auto or placement.cpus_per_actor=0.6666."
    ]
    assert not contents(Path())
