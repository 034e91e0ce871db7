"""The id of the W&B run belongs to a folder, not to a path."""

import json
import shutil
from dataclasses import replace

import numpy as np

from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import RunInfo
from fedvtc.tracking.wandb.identity import keep_id, kept_id


def test_a_folder_behind_a_link_keeps_its_id_and_a_copy_behind_the_link_does_not(tmp_path):
    folder = tmp_path / "outputs/run"
    (folder / "wandb").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"id": "abcd1234"}))
    config = load([], [], methods=config_classes())
    run = RunInfo("abcd1234", "run", folder, config, {}, np.ones((1, 2), dtype=np.int64), ["cnn"])
    keep_id(run, "chosen00")

    (tmp_path / "link").symlink_to(folder.parent)
    linked = replace(run, folder=tmp_path / "link/run")
    assert kept_id(linked) == "chosen00"
    keep_id(linked, "chosen00")
    assert kept_id(run) == "chosen00"

    copy = replace(run, folder=tmp_path / "link/copy")
    shutil.copytree(folder, copy.folder)
    assert kept_id(copy) not in ("chosen00", run.id)
    # The folder was moved, so the kept path is missing.
    folder.rename(tmp_path / "moved")
    assert kept_id(replace(run, folder=tmp_path / "moved")) == "chosen00"
