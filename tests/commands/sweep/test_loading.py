"""Loading sweep files: trials, and one-line messages for mistakes."""

import json
import shlex
from pathlib import Path

import pytest

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.sweep_file import AshaKeys
from fedvtc.config import Config, load
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes


def problems(file, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_sweep(file, overrides)
    return list(caught.value.problems)


def test_every_combination_is_a_trial_the_last_key_fastest(write):
    sweep = load_sweep(write("conf/mine.yaml", "grid: {partition.alpha: [0.1, 0.5], run.seed: [0, 1]}"))

    assert [trial.name for trial in sweep.trials] == [
        "alpha0.1-seed0",
        "alpha0.1-seed1",
        "alpha0.5-seed0",
        "alpha0.5-seed1",
    ]
    assert [(trial.config.partition.alpha, trial.config.run.seed) for trial in sweep.trials] == [
        (0.1, 0),
        (0.1, 1),
        (0.5, 0),
        (0.5, 1),
    ]
    assert sweep.trials[2].values == {"partition.alpha": 0.5, "run.seed": 0}


def test_trials_share_a_folder_and_a_wandb_group(write):
    file = write("mine.yaml", "set: {run.output_dir: there}\ngrid: {run.seed: [0, 1]}")

    sweep = load_sweep(file)

    assert (sweep.name, sweep.path) == ("mine", Path.cwd() / "there/mine")
    for trial in sweep.trials:
        assert trial.config.run.output_dir == str(sweep.path)
        assert trial.path == sweep.path / trial.name
        assert (trial.config.run.name, trial.config.run.resume) == (trial.name, "auto")
        assert trial.config.tracking.wandb.group == "mine"


def test_a_given_name_and_group_are_kept(write):
    file = write("mine.yaml", "name: other\nset: {tracking.wandb.group: ours}\ngrid: {run.seed: [0, 1]}")

    sweep = load_sweep(file)

    assert (sweep.name, sweep.path.name) == ("other", "other")
    assert {trial.config.tracking.wandb.group for trial in sweep.trials} == {"ours"}


def test_files_merge_first_then_set_then_values_then_the_command_line(write):
    write("conf/base.yaml", "run: {rounds: 1, seed: 1}\npartition: {alpha: 0.1, min_images: 1}")
    write("conf/method/one.yaml", "run: {rounds: 2, seed: 2}\npartition: {alpha: 0.2}\nmethod: {name: local}")
    sweep_file = write(
        "conf/sweep/mine.yaml",
        "base: [../base.yaml]\n"
        "set: {run: {rounds: 3, seed: 3}}\n"
        "grid: {files: [../method/one.yaml, []], run.seed: [4, 5]}\n",
    )

    one, _, other, _ = load_sweep(sweep_file, ["run.rounds=6"]).trials

    assert (one.config.partition.alpha, one.config.run.rounds, one.config.run.seed) == (0.2, 6, 4)
    assert (one.config.partition.min_images, one.config.method.name) == (1, "local")
    assert (other.config.partition.alpha, other.config.method.name) == (0.1, "fedvtc")


def test_files_may_set_different_keys(write):
    write("local.yaml", "method: {name: local}")
    write("wide.yaml", "method: {name: fedvtc, generator: {width: 8}}")

    local, wide = load_sweep(write("mine.yaml", "grid: {files: [local.yaml, wide.yaml]}")).trials

    assert (local.name, local.config.method.name) == ("local", "local")
    assert (wide.name, wide.config.method.generator.width) == ("wide", 8)


def test_a_list_has_one_trial_per_entry_and_the_grid_multiplies_it(write):
    file = write(
        "mine.yaml",
        "list: [{run.rounds: 3}, {partition: {kind: iid}, run: {rounds: 4}}]\ngrid: {run.seed: [0, 1]}",
    )

    trials = load_sweep(file).trials

    assert [trial.name for trial in trials] == [
        "rounds3-seed0",
        "rounds3-seed1",
        "rounds4-seed0-kind-iid",
        "rounds4-seed1-kind-iid",
    ]
    assert [trial.config.partition.kind for trial in trials] == ["dirichlet", "dirichlet", "iid", "iid"]


def test_draws_are_crossed_with_the_grid(write):
    file = write(
        "mine.yaml",
        "random: {training.optimizer.lr: {log_uniform: [0.001, 0.1]}}\nnum_samples: 3\ngrid: {run.seed: [0, 1]}",
    )

    trials = load_sweep(file).trials

    drawn = [trial.config.training.optimizer.lr for trial in trials]
    assert len(trials) == 6
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3
    assert all(0.001 <= lr <= 0.1 for lr in drawn)


def test_early_stopping_and_max_concurrent_are_read(write):
    file = write("mine.yaml", "grid: {run.seed: [0]}\nmax_concurrent: 2\nasha: {reduction_factor: 2}")

    sweep = load_sweep(file)

    assert (sweep.max_concurrent, sweep.asha) == (2, AshaKeys(reduction_factor=2.0))
    assert [trial.name for trial in sweep.trials] == ["seed0"]


def made(trial):
    """The config that the arguments of a trial give, after quoting for a shell."""
    words = shlex.split(shlex.join(trial.arguments))
    files = [word for word in words if word.endswith(".yaml")]
    return load(files, words[len(files) :], methods=config_classes())


def test_the_arguments_of_a_trial_give_its_config(write):
    write("base.yaml", "method: {name: local}\nrun: {rounds: 3}")
    backbones = "[{name: cnn_2x8, share: 0.5}, {name: cnn_2x16, share: 0.5}]"
    file = write(
        "mine.yaml",
        f"base: [base.yaml]\nset: {{population.backbones: {backbones}, data.path: null, method.label: 'a b'}}\n"
        "grid: {partition.alpha: [1.0e-05, 0.5], data.download: [true, false]}\n",
    )

    for trial in load_sweep(file, ["training.batch_size=8"]).trials:
        assert made(trial) == trial.config


@pytest.mark.parametrize("name", ["local", "fedvtc"])
def test_an_overridden_method_drops_arguments_of_another_method(write, name):
    write("base.yaml", "method: {name: fedvtc, finetune: {epochs: 3}}")
    text = "base: [base.yaml]\nset: {method.label: ours, method.generator.epochs: 2}\ngrid: {run.seed: [0, 1]}"

    for trial in load_sweep(write("mine.yaml", text), [f"method.name={name}"]).trials:
        assert trial.config.method.name == name
        assert made(trial) == trial.config


def test_nested_keys_merge_across_set_list_grid_and_random(write):
    text = (
        "set: {training.optimizer: {name: sgd, momentum: 0.5}, training: {}}\n"
        "list: [{method.finetune.epochs: 9}]\n"
        "grid: {training.optimizer: [{lr: 0.1}, {lr: 0.01}], method.finetune: [{batch_size: 3}]}\n"
        "random: {run: {choice: [{rounds: 3}]}}"
    )

    first, second = load_sweep(write("mine.yaml", text)).trials

    assert [first.name, second.name] == [f"epochs9-lr{lr}-batch_size3-rounds3" for lr in (0.1, 0.01)]
    for trial, lr in ((first, 0.1), (second, 0.01)):
        optimizer, finetune = trial.config.training.optimizer, trial.config.method.finetune
        assert (optimizer.name, optimizer.momentum, optimizer.lr) == ("sgd", 0.5, lr)
        assert (finetune.epochs, finetune.batch_size, trial.config.run.rounds) == (9, 3, 3)
        assert made(trial) == trial.config


def test_trials_do_not_share_values(write):
    optimizers = "training.optimizer: [{name: adam}, {name: sgd}], training.optimizer.lr: [0.1, 0.01]"

    trials = load_sweep(write("mine.yaml", f"grid: {{{optimizers}}}")).trials

    assert [tuple(trial.values.values()) for trial in trials] == [
        ("adam", 0.1),
        ("adam", 0.01),
        ("sgd", 0.1),
        ("sgd", 0.01),
    ]


def test_text_beyond_ascii_is_kept(write):
    labels = ["\U0001f600", "\u00e9", "\u6f22" * 60]
    texts = ", ".join('"' + "".join(f"\\U{ord(letter):08x}" for letter in label) + '"' for label in labels)

    trials = load_sweep(write("mine.yaml", f"grid: {{method.label: [{texts}]}}")).trials

    for trial, label in zip(trials, labels, strict=True):
        assert made(trial) == trial.config
        assert trial.config.method.label == label
        assert len(trial.name.encode()) <= 100
        assert "\n" not in shlex.join(trial.arguments)


def test_text_that_yaml_reads_as_another_type_stays_text(write):
    file = write("mine.yaml", 'grid: {method.label: ["on", "Off", "NULL", "plain"]}')

    for trial in load_sweep(file).trials:
        assert made(trial) == trial.config


def test_a_sweep_reads_numbers_as_a_config_does(write):
    text = (
        "set: {data.image_size: 032, method.label: 007}\ngrid: {run.seed: [007, 011]}\n"
        "random: {tracking.wandb.group: {choice: [2026_11]}}"
    )

    for trial, seed in zip(load_sweep(write("mine.yaml", text)).trials, (7, 11), strict=True):
        config = trial.config
        assert (config.run.seed, config.data.image_size, config.method.label) == (seed, 32, "007")
        assert config.tracking.wandb.group == "2026_11"
        assert made(trial) == config


def test_a_key_that_some_methods_lack_names_the_trials_and_the_line(write, keys_of, golden):
    text = (
        "list:\n- method.name: local\n  method.generator.epochs: 3\n- {method.name: fedvtc}\ngrid: {run.seed: [0, 1]}"
    )

    (line,) = problems(write("mine.yaml", text))

    assert keys_of(line) == ["method.generator"]
    assert "(mine.yaml:3)" in line
    assert "local-epochs3-seed0, local-epochs3-seed1" in line
    golden(line)


_VALUES = list(range(1000))
ROUNDS = "grid: {run.rounds: [9, 10]}"
MISTAKES = {
    "equal configs": ("grid: {run.seed: [0, '0']}", "mine.yaml", ""),
    "section and key": ("set: {run: null}\ngrid: {run.seed: [0, 1]}", "run", "mine.yaml:1"),
    "no trials": ("base: []", "mine.yaml", ""),
    "axis of a number": ("grid:\n  run.seed: 3", "grid.run.seed", "mine.yaml:2"),
    "file of a number": ("grid:\n  files:\n  - base.yaml\n  - 3", "files", "mine.yaml:4"),
    "key of the sweep": ("set: {run.name: x}\ngrid: {run.seed: [0]}", "run.name", "mine.yaml:1"),
    "max_concurrent": ("grid: {run.seed: [0]}\nmax_concurrent: 0", "max_concurrent", "mine.yaml:2"),
    "num_samples without random": ("grid: {run.seed: [0]}\nnum_samples: 2", "num_samples", "mine.yaml:2"),
    "reduction factor": ("grid: {run.seed: [0]}\nasha:\n  reduction_factor: 1", "asha.reduction_factor", "mine.yaml:3"),
    "metric": ("grid: {run.seed: [0]}\nasha: {metric: test/acuracy/mean}", "asha.metric", "mine.yaml:2"),
    "metric that is not measured": (
        f"{ROUNDS}\nasha: {{metric: validation/accuracy/mean}}",
        "asha.metric",
        "mine.yaml",
    ),
    "grace of all rounds": (f"{ROUNDS}\nasha: {{grace_rounds: 10}}", "asha", "mine.yaml"),
    "no evaluation to compare by": (f"{ROUNDS}\nset: {{evaluate.every: 10}}\nasha: {{}}", "asha", "mine.yaml"),
    "name with a slash": ("name: a/b\ngrid: {run.seed: [0]}", "name", "mine.yaml:1"),
    "equal names": ("grid:\n  run.seed: [0, 0]", "mine.yaml", ""),
    "two output folders": ("grid:\n  run.output_dir: [a, b]", "run.output_dir", "mine.yaml"),
    "distribution of a number": ("random:\n  run.seed: 3", "random.run.seed", "mine.yaml:2"),
    "unknown distribution": ("random:\n  run.seed: {itn: [1, 2]}", "random.run.seed", "mine.yaml:2"),
    "range without a list": ("random:\n  run.seed: {int: 3}", "random.run.seed", "mine.yaml:2"),
    "range of text": ("random:\n  run.seed: {int: [1, x]}", "random.run.seed", "mine.yaml:2"),
    "range from high to low": ("random:\n  run.seed: {int: [2, 1]}", "random.run.seed", "mine.yaml:2"),
    "log of zero": ("random:\n  run.seed: {log_uniform: [0, 2]}", "random.run.seed", "mine.yaml:2"),
    "list of a number": ("list:\n- 3", "list[0]", "mine.yaml:2"),
    "millions of trials": (f"grid: {{run.seed: {_VALUES}, training.epochs: {_VALUES}}}", "mine.yaml", ""),
    "millions of draws": ("random: {run.seed: {int: [0, 3]}}\nnum_samples: 1_000_000", "num_samples", "mine.yaml:2"),
    "name of a folder": ("variants: [{label: tune}]", "mine.yaml", ""),
}
MISTAKES_OF_ANY_CONFIG = {
    "merged keys": ("<<: {grid: {run.seed: [0, 1], run.rounds: [0]}}", "run.rounds", "mine.yaml"),
    "grid of a number": ("grid: 3", "grid", "mine.yaml:1"),
    "unknown key": ("gird: {run.seed: [0]}", "gird", "mine.yaml:1"),
    "unknown key of the config": ("grid:\n  run.sed: [0, 1]", "run.sed", "mine.yaml:2"),
    "bad value of the config": ("grid:\n  run.rounds:\n  - 1\n  - 0", "run.rounds", "mine.yaml:4"),
    "unknown nested key": (
        "set:\n  partition:\n    alhpa: 3\ngrid: {run.seed: [0, 1]}",
        "partition.alhpa",
        "mine.yaml:3",
    ),
    "absent file": ("base: [bse.yaml]\ngrid: {run.seed: [0]}", "bse.yaml", "mine.yaml:1"),
    "unknown key of asha": ("grid: {run.seed: [0]}\nasha: {grace_round: 2}", "asha.grace_round", "mine.yaml:2"),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *MISTAKES_OF_ANY_CONFIG])
def test_a_mistake_is_one_line_with_its_place(write, keys_of, golden, mistake):
    write("base.yaml", "run: {rounds: 1}")
    text, key, place = (MISTAKES | MISTAKES_OF_ANY_CONFIG)[mistake]

    (line,) = problems(write("mine.yaml", text))

    assert keys_of(line) == [key]
    assert (f"({place})." in line) if place else ("mine.yaml:" in line)
    if mistake in MISTAKES:
        golden(line)


@pytest.mark.parametrize(
    ("override", "key"),
    [("run.seed=7", "run.seed"), ("run={seed: 7}", "run"), ("partition.alpha.x=1", "partition.alpha.x")],
)
def test_an_override_of_a_varied_key_is_refused(write, keys_of, golden, override, key):
    (line,) = problems(write("mine.yaml", "grid: {partition.alpha: [0.1, 0.5], run.seed: [0, 1]}"), override)

    assert keys_of(line) == [key]
    assert "(mine.yaml:1)" in line
    golden(line)


def test_a_mistake_in_all_trials_is_reported_once(write, keys_of):
    found = problems(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}"), "run.rounds=0", "run.sed=1")

    assert keys_of("\n".join(found)) == ["run.sed", "run.rounds"]
    assert all("(command line)" in line for line in found)


def test_a_sweep_in_a_job_needs_an_absolute_output_folder(write, keys_of, monkeypatch):
    file = write("mine.yaml", "grid: {run.seed: [0, 1]}")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    (problem,) = problems(file)

    assert keys_of(problem) == ["run.output_dir"]
    assert load_sweep(file, ["run.output_dir=/somewhere"]).path == Path("/somewhere/mine")


def test_a_sweep_changes_only_name_and_folder(write):
    (trial,) = load_sweep(write("mine.yaml", "list: [{run.seed: 0}]")).trials

    assert trial.config.training == Config().training
    assert trial.config.data == Config().data


def test_own_backbones_and_loaders_are_imported_before_anything_starts(write, golden):
    text = "population.backbones: [[{name: 'absent.nets:small', share: 1.0}], [{name: cnn_2x8, share: 1.0}]]"
    found = problems(write("mine.yaml", f"grid: {{{text}}}"), "data.name=json:absent")
    golden("\n".join(found), {str(Path.cwd()): "FOLDER", json.__file__: "FILE"})
