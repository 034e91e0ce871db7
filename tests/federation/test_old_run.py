"""A run folder that version 0.1.0 wrote: the doctor reads it, and it resumes.

The folder was made small: its partition.png, samples and final checkpoint were removed.
"""

import json
import shutil
from pathlib import Path

import pytest

from fedvtc.commands.doctor.run_folder import examine_run
from fedvtc.commands.main import main
from fedvtc.config import fingerprint, load
from fedvtc.learning.methods import config_classes

OLD = Path(__file__).parents[1] / "data/old_run/small"


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "small"))


def not_ok(path):
    return [(row.what, row.state) for row in examine_run(path) if row.state != "ok"]


def test_the_fingerprint_of_an_old_config_stays(old):
    manifest = json.loads((old / "checkpoints/round_000002/manifest.json").read_text())

    assert fingerprint(load([old / "config.yaml"], [], methods=config_classes())) == manifest["fingerprint"]


def test_an_old_run_resumes(old):
    assert not_ok(old) == [("checkpoints/final", "warning")]
    before = (old / "metrics.jsonl").read_text().splitlines()

    assert main(["resume", str(old), "run.rounds=3", "--plain"]) == 0

    described = json.loads((old / "run.json").read_text())
    assert described["status"] == "finished"
    # From now on, the run knows its images.
    assert len(described["data"]["hash"]) == 64
    assert [attempt.get("resumed_round") for attempt in described["attempts"]] == [None, 2]
    lines = (old / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == before[:2]
    records = [json.loads(line) for line in lines]
    assert [(record["round"], record["phase"]) for record in records] == [
        (1, "round"),
        (2, "round"),
        (3, "round"),
        (3, "final"),
    ]
    assert not_ok(old) == []
