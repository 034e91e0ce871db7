"""Paths of a run folder's config are absolute, and leave the fingerprint as it is."""

import os
from dataclasses import replace

import pytest

from fedvtc.config import Config, absolute_paths, fingerprint, load
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.config.problems import encoding_problem
from fedvtc.errors import ConfigError
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


def test_bytes_that_are_not_utf8_are_refused_in_one_line(tmp_path, monkeypatch, keys_of, golden):
    latin = os.fsdecode(b"gr\xf6sse")
    with pytest.raises(ConfigError) as of_the_value:
        loaded(f"run.name={latin}")
    (tmp_path / latin).mkdir()
    monkeypatch.chdir(latin)
    with pytest.raises(ConfigError) as of_the_folder:
        absolute_paths(loaded("data.name=npz", "data.path=plain.npz"))
    golden(str(of_the_value.value).encode(errors="backslashreplace").decode())
    assert keys_of(of_the_folder.value) == ["data.path"]
    # Without a path, the working folder is in no file.
    assert absolute_paths(Config()) == Config()
    # A locale of ASCII, such as LC_ALL=C with PYTHONUTF8=0, makes UTF-8 bytes surrogates too.
    problem = encoding_problem("run.name", "gr\udcc3\udcb6sse")
    assert "PYTHONUTF8" in problem.fix


def test_urls_and_defaults_stay():
    assert absolute_paths(Config()) == Config()
    assert absolute_paths(loaded("checkpoint.dir=s3://bucket/a")).checkpoint.dir == "s3://bucket/a"


def test_paths_of_a_submitted_job_stay(monkeypatch):
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    config = replace(loaded(*RELATIVE))
    assert absolute_paths(config) == config
