"""Data sets outside of the package: `data.name=package.module:function`."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config import load
from fedvtc.config.schema import DataConfig
from fedvtc.errors import ConfigError, DataError
from fedvtc.learning.data import DataReport, load_dataset
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population

SOURCE = """
import numpy as np

images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
asked = []

def good(path):
    asked.append(path)
    return {
        "x_train": images[:20], "y_train": [3, 7] * 10, "x_test": images[20:], "y_test": [7, 3] * 5,
        "class_names": ["cat", "dog"], "user": list("ab") * 10,
    }

def half(path):
    return {"x_train": images, "y_train": [0] * 30}

def dark(path):
    return good(path) | {"x_train": images[:20] // 64}

def ragged(path):
    return good(path) | {"y_train": [[0], [1, 2]]}

def fails(path):
    return open(path / "images.bin")

def pair(path):
    return images, [0] * 30

def wants(path, more):
    return good(path)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A working folder with the module own_data."""
    (tmp_path / "own_data.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_data", None)


def test_a_function_in_the_working_folder_gives_the_images():
    dataset = load_dataset(DataConfig(name="own_data:good"))

    images_NHWC = sys.modules["own_data"].images
    assert np.array_equal(dataset.train.images_NCHW, images_NHWC[:20].transpose(0, 3, 1, 2))
    assert (dataset.class_names, dataset.train.labels_N[:2].tolist()) == (("cat", "dog"), [0, 1])
    assert dataset.groups_N.tolist() == [0, 1] * 10
    assert "labels 3, 7 are the classes 0 to 1" in DataReport.of(dataset).line()


def test_the_function_gets_the_path_of_the_config():
    words = ["data.path=~/raw", "data.pixel_max=255", "partition.kind=iid", "population.num_clients=2"]
    config = load([], ["data.name=own_data:good", *words], methods=config_classes())

    assert Population.of(config).dataset.name == "own_data:good"
    load_dataset(DataConfig(name="own_data:good"))
    assert sys.modules["own_data"].asked == [Path("~/raw").expanduser(), None]


def test_a_function_that_returns_no_data_set_is_refused(golden, keys_of, tmp_path):
    refusals = []
    for name in ("half", "dark", "ragged", "fails", "pair", "wants", "absent"):
        with pytest.raises(DataError) as refused:
            load_dataset(DataConfig(name=f"own_data:{name}", path=str(tmp_path)))
        refusals.append(str(refused.value))
    assert keys_of("\n".join(refusals[2:])) == ["data.name"] * 5
    golden("\n".join(refusals))


def test_an_unknown_name_is_refused_before_code_runs(keys_of):
    with pytest.raises(ConfigError) as refused:
        load([], ["data.name=own-data:good"], methods=config_classes())
    assert keys_of(refused.value) == ["data.name"]
    assert "own_data" not in sys.modules
