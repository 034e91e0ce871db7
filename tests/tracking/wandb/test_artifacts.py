"""Artifacts of a run that was built by hand, as W&B stores them offline."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import RunInfo
from fedvtc.tracking.wandb.local_log import records
from fedvtc.tracking.wandb.tracker import WandbTracker


@pytest.fixture
def run(tmp_path):
    config = load([], ["tracking.wandb.upload_checkpoints=true"], methods=config_classes())
    # A file with the function is not needed, because the run loads no data.
    config = replace(config, data=replace(config.data, name="my_data:load"))
    folder, final = tmp_path / "run", tmp_path / "checkpoints/final"
    for path in (folder, final):
        path.mkdir(parents=True)
    description = {"id": "abcd1234", "name": "run", "status": "running", "attempts": [{}]}
    (folder / "run.json").write_text(json.dumps(description | {"data": {"hash": "0123456789abcdef"}}))
    for file in (folder / "partition.npz", final / "manifest.json", final / "client_0000.pt", final / "server.pt"):
        file.write_bytes(b"content")
    counts_KC = np.ones((1, 2), dtype=np.int64)
    return RunInfo("abcd1234", "run", folder, config, {}, counts_KC, ["cnn"], checkpoints=str(final.parent))


def track(run):
    """Tracks a run without a round; returns the lines for the user."""
    import wandb

    reported = []
    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(run)
    tracker.finish("finished")
    wandb.teardown()
    return reported


def test_a_data_set_of_a_plug_in_has_an_artifact_and_loses_no_other_artifact(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(run)
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    names = {record.artifact.type: record.artifact.name for record in records(file) if record.HasField("artifact")}
    assert names == {
        "dataset": "my_data-load-0123456789ab",
        "partition": "partition-abcd1234",
        "model": "clients-abcd1234",
        "server-state": "server-abcd1234",
    }


def test_a_disabled_run_copies_no_file(run, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "copies"))
    assert track(run) == []
    assert not (tmp_path / "copies").exists()
    assert not (run.folder / "wandb").exists()
