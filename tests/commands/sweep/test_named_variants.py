"""Named variants of a sweep, keys that some methods lack, and runs whose trials got other names."""

import os

import pytest
import yaml

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.known_folders import with_known_folders
from fedvtc.config import to_dict
from fedvtc.errors import ConfigError
from fedvtc.storage.run_folder import RunFolder

VARIANTS = """
variants:
- {label: Alone, files: [local.yaml]}
- {label: Ours, files: [ours.yaml], keys: {method: {finetune: {epochs: 7}}, training.batch_size: 8}}
"""


@pytest.fixture
def sweep(write):
    """Loads a sweep with the two variants and further text."""
    write("local.yaml", "method: {name: local, label: L}")
    write("ours.yaml", "method: {name: fedvtc, finetune: {epochs: 3}}")
    return lambda text, *overrides: load_sweep(write("mine.yaml", VARIANTS + text), overrides)


def test_a_variant_has_a_label_files_and_keys(sweep):
    alone, _, ours, _ = sweep("grid: {run.seed: [0, 1]}").trials

    assert [alone.name, ours.name] == ["Alone-seed0", "Ours-seed0"]
    assert [alone.values, ours.values] == [{"label": "Alone", "run.seed": 0}, {"label": "Ours", "run.seed": 0}]
    assert [alone.config.method.label, ours.config.method.label] == ["Alone", "Ours"]
    assert (ours.config.method.finetune.epochs, ours.config.training.batch_size) == (7, 8)
    assert alone.config.training.batch_size == 32


def test_a_key_applies_where_the_method_has_it(sweep):
    text = "set: {method.generator.epochs: 2}\ngrid: {method.generator.width: [8, 16], run.seed: [0]}"

    trials = sweep(text).trials

    assert [trial.name for trial in trials] == ["Alone-seed0", "Ours-seed0-width8", "Ours-seed0-width16"]
    assert [trial.config.method.generator.epochs for trial in trials[1:]] == [2, 2]
    assert [trial.config.method.generator.width for trial in trials[1:]] == [8, 16]


def test_a_key_of_some_methods_on_the_command_line_belongs_under_set(sweep, golden):
    with pytest.raises(ConfigError) as refused:
        sweep("grid: {run.seed: [0]}\n", "method.generator.width=8")
    golden(refused.value)


def test_a_key_that_no_method_has_is_a_mistake(sweep, golden, keys_of):
    with pytest.raises(ConfigError) as refused:
        sweep("grid:\n  method.generator.widht: [8]\n")
    assert keys_of(refused.value) == ["method.generator.widht"]
    golden(refused.value)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("{files: [local.yaml]}", "variants[0].label"),
        ("{label: A, keys: {method.wieght: 1}}", "method.wieght"),
        ("{label: A, files: [absent.yaml]}", "absent.yaml"),
    ],
)
def test_a_mistake_in_a_variant_is_one_line(write, golden, keys_of, entry, key):
    with pytest.raises(ConfigError) as refused:
        load_sweep(write("mine.yaml", f"variants:\n- {entry}\n"))
    assert keys_of(refused.value) == [key]
    golden(refused.value)


def test_a_run_is_known_by_its_config_after_its_trial_got_another_name(sweep):
    for trial in sweep("grid: {run.seed: [0, 1]}").trials:
        RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))

    text = "grid: {run.seed: [0, 1, 2], partition.alpha: [0.1, 0.5]}"
    trials = sweep(text).trials

    known = {trial.name for trial in trials if (trial.path / "run.json").exists()}
    assert known == {"Alone-seed0", "Alone-seed1", "Ours-seed0", "Ours-seed1"}
    assert {trial.config.partition.alpha for trial in trials if trial.name in known} == {0.1}
    assert all(f"run.name={trial.name}" in trial.arguments for trial in trials)
    assert len({trial.name for trial in trials}) == 12
    # Another number of rounds is another trial, unless its name is the same.
    assert not any((trial.path / "run.json").exists() for trial in sweep(text, "run.rounds=3").trials)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_folder_of_another_user_is_not_read(sweep):
    before, *_ = sweep("grid: {run.seed: [0]}").trials
    RunFolder.create(before.config.run.output_dir, "elsewhere", to_dict(before.config))
    assert with_known_folders([before])[0].name == "elsewhere"
    os.chown(before.path.with_name("elsewhere"), 54321, -1)
    assert with_known_folders([before])[0].name == before.name


def test_the_comparison_has_every_method(request):
    root = request.config.rootpath / "conf"
    keys = yaml.safe_load((root / "sweep/comparison.yaml").read_text())

    named = {file for variant in keys["variants"] for file in variant["files"]}
    assert named == {f"../method/{file.name}" for file in (root / "method").glob("*.yaml")}
    assert len({trial.config.method.label for trial in load_sweep(root / "sweep/comparison.yaml").trials}) == len(named)
