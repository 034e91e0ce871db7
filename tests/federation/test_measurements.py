"""Measurements of the final models of a run that continues with more rounds."""

import csv
import shutil
from pathlib import Path

import pytest

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking import Tracker

MEASUREMENTS = ("evaluations.csv", "privacy", "features")
pytestmark = pytest.mark.slow


class Breaks(Tracker):
    """Ends a run in round 2."""

    def log(self, record, clients):
        if (record["round"], record["phase"]) == (2, "round"):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config_of(two_clients, tiny_words):
    return lambda *overrides: load(
        [], [*two_clients, "run.resume=auto", *tiny_words, *overrides], methods=config_classes()
    )


@pytest.fixture(scope="module")
def measured(config_of):
    """The folder of a finished run with measurements."""
    path = run_federation(config_of(), plain=True).folder
    assert main(["evaluate", str(path), "--on", "rotated:90"]) == 0
    assert main(["privacy", str(path), "--images", "4", "--clients", "0"]) == 0
    assert main(["features", str(path), "--points", "48", "--clients", "0"]) == 0
    return path


@pytest.fixture
def run(measured, tmp_path):
    """A copy of the measured run."""
    return Path(shutil.copytree(measured, tmp_path / "mine"))


def content_of(path):
    return {
        file: file.read_bytes()
        for name in MEASUREMENTS
        for file in [path / name, *path.glob(f"{name}/*")]
        if file.is_file()
    }


def evaluated_sets(path):
    with (path / "evaluations.csv").open() as file:
        return {row["on"] for row in csv.DictReader(file)}


def test_measurements_of_the_earlier_final_models_are_deleted(run, capsys, keys_of):
    resume_federation(run, ["run.rounds=2"], plain=True)

    assert not any((run / name).exists() for name in MEASUREMENTS)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "evaluations.csv, privacy/, features/" in line)
    assert keys_of(line) == [str(run)]
    assert main(["evaluate", str(run), "--on", "noise:0.1"]) == 0
    assert evaluated_sets(run) == {"test", "noise:0.1"}


def test_a_resume_that_changes_nothing_keeps_measurements(run):
    before = content_of(run)
    assert len(before) > len(MEASUREMENTS)

    resume_federation(run, ["checkpoint.keep=5"], plain=True)

    assert content_of(run) == before


def test_a_run_that_was_made_longer_and_stopped_has_no_final_models(run, config_of, capsys, keys_of):
    with pytest.raises(KeyboardInterrupt):
        run_federation(config_of("run.rounds=3", f"run.output_dir={run.parent}"), plain=True, trackers=[Breaks()])

    assert not any((run / name).exists() for name in (*MEASUREMENTS, "checkpoints/final"))
    capsys.readouterr()
    assert main(["evaluate", str(run), "--on", "noise:0.1"]) == 2
    assert keys_of(capsys.readouterr().err) == [str(run)]


def test_the_rest_of_measurements_is_deleted_after_a_crash(run):
    # As after a kill of the attempt that was deleting.
    folder = RunFolder.open(run)
    with folder.lock():
        folder.begin_attempt(1)
    shutil.rmtree(run / "checkpoints/final")
    (run / "evaluations.csv").unlink()
    (run / "privacy/privacy.json").unlink()

    resume_federation(run, plain=True)

    assert not any((run / name).exists() for name in MEASUREMENTS)
    assert (run / "checkpoints/final/manifest.json").is_file()
