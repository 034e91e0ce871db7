"""Folders of trials that got other names: runs whose configs differ in keys that may change on resume."""

from dataclasses import replace

import pytest

from fedvtc.commands.sweep import load_sweep
from fedvtc.config import load, to_dict
from fedvtc.learning.methods import config_classes
from fedvtc.storage.run_folder import RunFolder


@pytest.fixture
def loaded(write):
    """Loads a sweep file."""
    return lambda text: load_sweep(write("mine.yaml", text)).trials


@pytest.fixture
def finished(loaded):
    """Loads a sweep file and makes a finished run of each trial; returns the trials."""

    def make(text):
        trials = loaded(text)
        for trial in trials:
            create(trial)
        return trials

    return make


def create(trial, name=None, config=None):
    folder = RunFolder.create(trial.config.run.output_dir, name or trial.name, to_dict(config or trial.config))
    folder.set_status("finished")


def config_in_folder(trial):
    return load([trial.path / "config.yaml"], [], methods=config_classes())


def with_folders(trials):
    return [trial for trial in trials if (trial.path / "run.json").exists()]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("placement.accelerator", "[cuda, cpu]"),
        ("placement.pool", "[ray, inline]"),
        ("evaluate.every", "[5, 1]"),
        ("runtime.on_client_error", "[skip, fail]"),
        ("checkpoint.keep_best", "[true, false]"),
    ],
)
def test_a_trial_takes_the_run_that_agrees_on_every_varied_key(finished, loaded, key, values):
    section, name = key.split(".")
    text = f"set: {{training.epochs: 1}}\ngrid:\n  {key}: {values}\n  run.seed: [0]\n"
    before = finished(text)
    added = loaded(text.replace("set: {training.epochs: 1}\n", "") + "  training.epochs: [1, 2]\n")

    found = with_folders(added)

    assert {trial.name for trial in found} == {trial.name for trial in before}
    assert [trial.values["training.epochs"] for trial in found] == [1, 1]
    for trial in found:
        run = config_in_folder(trial)
        assert (
            getattr(getattr(run, section), name) == trial.values[key] == getattr(getattr(trial.config, section), name)
        )


def test_a_run_with_another_value_of_a_varied_key_is_not_taken(finished, loaded):
    finished("grid: {placement.pool: [inline], run.seed: [0]}")

    assert with_folders(loaded("grid: {placement.pool: [ray], run.seed: [0], training.epochs: [5]}")) == []
    # The files of the trials set the key, which the sweep file does not name.
    variants = "variants:\n- {label: A, keys: {placement.pool: ray}}\n- {label: B, keys: {placement.pool: inline}}\n"
    (found,) = with_folders(loaded(variants + "grid: {run.seed: [0]}"))
    assert (found.values["label"], found.config.placement.pool) == ("B", "inline")


def test_the_run_with_the_fewest_differing_keys_is_taken(loaded):
    text = "grid: {run.seed: [0]}"
    (trial,) = loaded(text)
    placement = replace(trial.config.placement, pool="inline")
    create(trial, "another-pool", replace(trial.config, placement=placement))
    assert [found.name for found in with_folders(loaded(text))] == ["another-pool"]

    create(trial, "equal")

    assert [found.name for found in with_folders(loaded(text))] == ["equal"]


def test_labels_may_differ_and_equal_labels_come_first(finished, loaded):
    text = "variants:\n- {{label: {}}}\n- {{label: {}}}\ngrid:\n  run.seed: [0]\n"
    epochs = finished(text.format("B", "A"))[0].config.training.epochs

    # The first trial may take both folders, but the label of the other trial is that of A-seed0, the first folder.
    trials = loaded(text.format("C", "A") + f"  training.epochs: [{epochs}]\n")

    assert [trial.name for trial in trials] == ["B-seed0", "A-seed0"]
