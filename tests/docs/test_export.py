"""The code of docs/export.md loads an export without fedvtc, and predicts as the run did."""

import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedvtc.commands.main import main
from fedvtc.learning.models import build_backbone
from fedvtc.learning.models.classifier import ClassifierModule
from fedvtc.learning.models.programs import portable_weights

FICKLE = """
from torch import nn


class Fickle(nn.Module):
    '''A backbone whose steps depend on pixels, which torch.export cannot trace.'''

    def __init__(self, num_channels, image_size):
        super().__init__()
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(num_channels * image_size**2, 4))

    def forward(self, images):
        features = self.flat(images)
        return features if images.sum() > 1 else -features
"""


@pytest.fixture
def code(blocks, root):
    """The examples: a model, its accuracy with fedvtc, a model of torchvision, images of a class."""
    return blocks(root / "docs/export.md", "python")


@pytest.fixture
def run_alone(monkeypatch):
    """A function that runs code as if fedvtc were deleted, every module of the package; returns its names.

    A process of its own would import PyTorch and its compiler anew, which takes 7 CPU seconds.
    """

    def run(text):
        with monkeypatch.context() as alone:
            # A module that stays would be found by its full name, without its package.
            for name in ["fedvtc", *(name for name in sys.modules if name.startswith("fedvtc."))]:
                alone.setitem(sys.modules, name, None)
            for module in ("fedvtc", "fedvtc.learning.models.classifier"):
                with pytest.raises(ModuleNotFoundError):
                    exec(f"from {module} import *", {})
            names = {}
            exec(compile(text, "docs/export.md", "exec"), names)
        return names

    return run


@pytest.mark.slow
def test_exported_models_and_generators_work_without_fedvtc(
    code, rows, root, run_alone, tiny_folder, tmp_path, monkeypatch, capsys
):
    folder = tiny_folder("exported")
    data = folder / "tiny.npz"
    settings = ["run.rounds=1", "population.num_clients=2", "population.feature_size=6", "partition.alpha=100"]
    small = ["method.generator.epochs=1", "method.generator.width=4", "method.finetune.epochs=1"]
    words = [*settings, *small, "data.name=npz", f"data.path={data}", "method.finetune.images_per_class=40"]
    backbones = "population.backbones=[{name: cnn_2x8, share: 1}]"
    place = ["conf/cluster/inline.yaml", f"run.output_dir={folder}", "run.name=mine", "--plain"]
    assert main(["run", "conf/method/fedvtc_plus.yaml", *words, backbones, *place]) == 0

    assert main(["export", str(folder / "mine"), "-o", str(tmp_path / "out"), "--images", "3"]) == 0

    assert "models of 2 clients, 2 programs, 2 generators" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "out")
    test = np.load(data)
    final = np.load(folder / "mine/confusion.npz")["final"]
    # As readable as any other file.
    modes = {path.stat().st_mode for path in tmp_path.glob("out/**/*") if path.is_file()}
    assert len(modes) == 1
    for client in (0, 1):
        names = run_alone(code[0].replace("client_0000", f"client_{client:04d}"))
        predicted_N = names["classify"](torch.from_numpy(test["x_test"])).numpy()
        counts_CC = np.zeros((3, 3), dtype=np.int64)
        np.add.at(counts_CC, (test["y_test"], predicted_N), 1)
        assert np.array_equal(counts_CC, final[client])
    # An export lies in its run folder, if no other folder is named.
    shutil.copy(folder / "mine/config.yaml", tmp_path)
    exec(code[1], names)
    assert names["right"].mean() == names["about"]["test_accuracy"]
    assert run_alone(code[3])["images"].shape == (16, 1, 8, 8)
    synthetic = np.load("synthetic/images.npz")
    assert np.bincount(synthetic["y_train"]).tolist() == [3, 3, 3]
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    general = {
        name.replace("client_0001", "client_0000")
        .replace("cnn_2x8", "cnn_2x16")
        .replace("generator.pt2", "cnn_2x16.pt2")
        for name in files
        if not name.startswith("synthetic/train")
    }
    described = {row[0] for row in rows(root / "docs/export.md", "") if not row[0].startswith("synthetic/train")}
    assert general == described - {"models/client_0000.onnx"}
    assert len(files) - len([name for name in files if not name.startswith("synthetic/train")]) == 9


@pytest.mark.slow
def test_the_readme_loads_a_model_that_has_a_program(blocks, run_alone, tiny_folder, tmp_path, monkeypatch, capsys):
    folder = tiny_folder("fickle")
    (folder / "fickle.py").write_text(FICKLE)
    monkeypatch.syspath_prepend(str(folder))
    data = ["data.name=npz", f"data.path={folder / 'tiny.npz'}", "partition.alpha=100"]
    backbones = "population.backbones=[{name: 'fickle:Fickle', share: 0.5}, {name: cnn_2x8, share: 0.5}]"
    words = ["run.rounds=1", "population.num_clients=2", "population.feature_size=6", backbones, *data]
    place = ["conf/cluster/inline.yaml", f"run.output_dir={folder}", "run.name=mine", "--plain"]
    assert main(["run", "conf/method/local.yaml", *words, *place]) == 0
    for clients, num_blocks in (([], 1), (["--clients", "0"], 0)):
        out = tmp_path / str(num_blocks)
        assert main(["export", str(folder / "mine"), "-o", str(out), *clients]) == 0
        assert "fickle" in capsys.readouterr().out
        found = blocks(out / "README.md", "python")
        assert len(found) == num_blocks
        monkeypatch.chdir(out)
        for text in found:
            assert run_alone(text)["scores"].shape == (1, 3)


@pytest.mark.slow
def test_the_weights_load_into_the_class_of_torchvision(code, run_alone, tmp_path, monkeypatch):
    from fedvtc.config.schema import OptimizerConfig

    backbone = build_backbone("resnet18", num_channels=1, image_size=8, feature_size=6)
    module = ClassifierModule(backbone, feature_size=6, num_classes=3, optimizer=OptimizerConfig()).eval()
    (tmp_path / "models").mkdir()
    save_file(portable_weights(module), tmp_path / "models/client_0000.safetensors")
    monkeypatch.chdir(tmp_path)

    model = run_alone(code[2])["model"]

    images = torch.rand(4, 1, 8, 8) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(model(images), module(images))
