"""The commands on a finished run (export, evaluate, privacy, features), and the arguments that they refuse."""

import csv
import hashlib
import itertools
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedvtc.commands.features.projecting import principal_components
from fedvtc.commands.main import main
from fedvtc.commands.privacy.measuring import MEASURES
from fedvtc.commands.report.privacy import measure_privacy
from fedvtc.learning.privacy.memorisation import MEMORISATION
from fedvtc.storage.features import read_points
from fedvtc.storage.privacy import read_measures


@pytest.fixture(scope="module")
def run(two_clients, tiny_words):
    """The folder of a finished run of two clients."""
    assert main(["run", *two_clients, "--plain", *tiny_words]) == 0
    output_dir = next(word for word in tiny_words if word.startswith("run.output_dir="))
    return f"{output_dir.partition('=')[2]}/mine"


@pytest.mark.slow
def test_a_run_is_evaluated_on_other_test_sets(run, tiny_words, capsys):
    data = next(word for word in tiny_words if word.startswith("data.path=")).partition("=")[2]
    sets = ["rotated:90", "noise:0.5", f"npz:{data}"]
    command = ["evaluate", run]

    assert main([*command, "--on", sets[0]]) == 0
    assert main([*command, "--on", sets[1], "--on", sets[2], "--clients", "1"]) == 0

    with open(f"{run}/evaluations.csv") as file:
        rows = {(int(row["client"]), row["on"]): row for row in csv.DictReader(file)}
    assert list(rows) == [(0, "test"), (0, sets[0]), (1, "test"), (1, sets[0]), (1, sets[1]), (1, sets[2])]
    with open(f"{run}/clients.csv") as file:
        final = {int(row["client"]): row for row in csv.DictReader(file) if row["phase"] == "final"}
    for client in (0, 1):
        assert {name: rows[client, "test"][name] for name in ("accuracy", "f1", "accuracy/held")} == {
            name: final[client][name] for name in ("accuracy", "f1", "accuracy/held")
        }
    # The same images from another file.
    assert rows[1, sets[2]]["accuracy"] == final[1]["accuracy"]
    assert "noise:0.5" in capsys.readouterr().out


@pytest.mark.slow
def test_the_final_record_has_the_memorisation_of_generated_images(run):
    with open(f"{run}/metrics.jsonl") as file:
        round, final = map(json.loads, file)

    assert {name for name in final if name.startswith("memorisation/")} == MEMORISATION.keys()
    assert not any(name.startswith("memorisation/") for name in round)
    # Two clients of eight images, and the twenty others of the training set.
    assert final["memorisation/chance"] == pytest.approx(16 / 36)


@pytest.mark.slow
def test_the_privacy_of_a_run_is_measured(run, tmp_path, capsys):
    folder = tmp_path / "measured"

    assert main(["privacy", run, "-o", str(folder), "--images", "4"]) == 0

    measured = json.loads((folder / "privacy.json").read_text())
    assert measured["measures"].keys() == MEASURES.keys()
    assert all(value["meaning"] for value in measured["measures"].values())
    assert [row["client"] for row in measured["clients"]] == [0, 1]
    assert {path.name for path in folder.iterdir()} == {"privacy.json", "clients.csv", "copies.png", "inversions.png"}
    assert "membership/auc" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_measures_the_privacy_of_runs_without_measures(run, tmp_path, capsys, golden):
    measured, early, taken = (Path(shutil.copytree(run, tmp_path / name)) for name in ("measured", "early", "taken"))
    (measured / "privacy").mkdir()
    (measured / "privacy/privacy.json").write_text("{}")
    # The final checkpoint of version 0.1.0 has an empty server.pt.
    server = early / "checkpoints/final/server.pt"
    torch.save({}, server)
    text = (manifest := server.with_name("manifest.json")).read_text()
    shard = next(shard for shard in json.loads(text)["shards"] if shard["name"] == server.name)
    content = server.read_bytes()
    text = text.replace(shard["sha256"], hashlib.sha256(content).hexdigest())
    manifest.write_text(text.replace(f": {shard['num_bytes']},", f": {len(content)},", 1))
    (taken / "privacy").mkdir()
    (taken / "privacy/note.txt").touch()

    problems = measure_privacy([measured, Path(run), early, taken])

    assert read_measures(Path(run)).keys() == MEASURES.keys()
    assert (measured / "privacy/privacy.json").read_text() == "{}"
    out, err = capsys.readouterr()
    assert err.splitlines() == problems
    golden(out + err, {run: "RUN"})


@pytest.mark.slow
def test_features_of_real_and_generated_images_are_projected(run, capsys):
    assert main(["features", run, "--clients", "1", "--points", "48"]) == 0

    points = read_points(Path(run))
    # 48 points of two models, two kinds of images and three classes are four images of each class.
    kinds = Counter((point["client"], point["models"], point["images"], point["class"]) for point in points)
    expected = itertools.product([1], ["before", "after"], ["real", "generated"], ["0", "1", "2"])
    assert kinds == dict.fromkeys(expected, 4)
    places = {stage: [point["pca/x"] for point in points if point["models"] == stage] for stage in ("before", "after")}
    # Fine-tuning has changed the model.
    assert places["before"] != places["after"]
    assert len({point["tsne/x"] for point in points}) > 40
    with Image.open(f"{run}/features/real.png") as image:
        assert image.height > 3 * 56
    assert f"{run}/features" in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_done_is_refused(run, tmp_path, capsys, golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    commands = [
        ["export", run, "-o", str(tmp_path / "taken")],
        ["export", run, "-o", str(tmp_path / "new"), "--clients", "0,2"],
        ["export", run, "-o", str(tmp_path / "new"), "--images", "-1"],
        ["export", run, "-o", str(tmp_path / "new"), "--onnx"],
        ["export", str(tmp_path / "absent")],
        ["evaluate", run, "--on", "blurred:2"],
        ["evaluate", run, "population.num_clients=3"],
        ["privacy", run, "-o", str(tmp_path / "new"), "--images", "0"],
        ["features", run, "-o", str(tmp_path / "new"), "--points", "0"],
    ]

    codes = [main(command) for command in commands]

    assert codes == [2] * len(commands)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    golden(capsys.readouterr().err, {run: "RUN"})


@pytest.mark.slow
def test_a_run_without_final_models_is_refused(two_clients, tiny_words, tmp_path, capsys, golden):
    output = f"run.output_dir={tmp_path}"
    words = [word for word in two_clients if not word.startswith("method.")]
    assert main(["run", *words, "--plain", *tiny_words, output, "method.name=local", "checkpoint.every=null"]) == 0
    capsys.readouterr()

    assert main(["export", str(tmp_path / "mine")]) == 2

    golden(capsys.readouterr().err)
    assert not (tmp_path / "mine/export").exists()
    assert np.load(tmp_path / "mine/confusion.npz")["final"].shape == (2, 3, 3)


def test_principal_components_are_the_directions_of_the_largest_variance():
    # On the line (3, 4) at -10, 0 and 10, and beside the line at 0: the mean is 0.
    points = np.array([[-6, -8], [6, 8], [0, 0], [-0.8, 0.6], [0.8, -0.6]], dtype=np.float32)

    found = principal_components(points + 7)

    assert found == pytest.approx(np.array([[-10, 0], [10, 0], [0, 0], [0, -1], [0, 1]]), abs=1e-5)
