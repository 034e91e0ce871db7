"""Paths of a run folder's config are absolute, and leave the fingerprint as it is."""

from dataclasses import replace

import pytest

from fedvtc.config import Config, absolute_paths, fingerprint, load
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.learning.methods import config_classes

RELATIVE = [
    "data.name=npz",
    "data.path=a/plain.npz",
    "data.root=~/sets",
    "checkpoint.dir=saved",
    "partition.file=p.npz",
]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv(JOB_VARIABLE, raising=False)


def loaded(*overrides):
    return load([], overrides, methods=config_classes())


def test_paths_that_may_change_on_resume_become_absolute(tmp_path):
    config = absolute_paths(loaded(*RELATIVE))
    assert (config.data.path, config.data.root) == (f"{tmp_path}/a/plain.npz", "/home/me/sets")
    assert config.checkpoint.dir == f"{tmp_path}/saved"
    # Part of the fingerprint, and not read by a resumed run.
    assert config.partition.file == "p.npz"
    assert absolute_paths(config) == config


def test_the_fingerprint_is_the_same_from_every_folder(tmp_path, monkeypatch):
    config = loaded(*RELATIVE)
    prints = [fingerprint(config), fingerprint(absolute_paths(config))]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert {*prints, fingerprint(absolute_paths(config))} == {fingerprint(config)}


def test_urls_and_defaults_stay():
    assert absolute_paths(Config()) == Config()
    assert absolute_paths(loaded("checkpoint.dir=s3://bucket/a")).checkpoint.dir == "s3://bucket/a"


def test_paths_of_a_submitted_job_stay(monkeypatch):
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    config = replace(loaded(*RELATIVE))
    assert absolute_paths(config) == config
