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


def test_trials_have_their_place_and_their_group(write):
    file = write("mine.yaml", "set: {run.output_dir: there}\ngrid: {run.seed: [0, 1]}")

    sweep = load_sweep(file)

    assert (sweep.name, sweep.path) == ("mine", Path.cwd() / "there/mine")
    for trial in sweep.trials:
        assert trial.config.run.output_dir == str(sweep.path)
        assert trial.path == sweep.path / trial.name
        assert (trial.config.run.name, trial.config.run.resume) == (trial.name, "auto")
        assert trial.config.tracking.wandb.group == "mine"


def test_the_name_and_a_group_of_ones_own_stay(write):
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


def test_files_may_have_keys_of_their_own(write):
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


def test_early_stopping_and_how_many_at_a_time(write):
    file = write("mine.yaml", "grid: {run.seed: [0]}\nmax_concurrent: 2\nasha: {reduction_factor: 2}")

    sweep = load_sweep(file)

    assert (sweep.max_concurrent, sweep.asha) == (2, AshaKeys(reduction_factor=2.0))
    assert [trial.name for trial in sweep.trials] == ["seed0"]


def made(trial):
    """The config that a trial's words make, given to a shell."""
    words = shlex.split(shlex.join(trial.words))
    files = [word for word in words if word.endswith(".yaml")]
    return load(files, words[len(files) :], methods=config_classes())


def test_the_words_of_a_trial_make_its_config(write):
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
def test_a_method_of_the_command_line_leaves_no_words_of_another(write, name):
    write("base.yaml", "method: {name: fedvtc, finetune: {epochs: 3}}")
    text = "base: [base.yaml]\nset: {method.label: ours, method.generator.epochs: 2}\ngrid: {run.seed: [0, 1]}"

    for trial in load_sweep(write("mine.yaml", text), [f"method.name={name}"]).trials:
        assert trial.config.method.name == name
        assert made(trial) == trial.config


def test_keys_with_values_merge_wherever_they_stand(write):
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


def test_what_one_trial_sets_is_not_in_another(write):
    optimizers = "training.optimizer: [{name: adam}, {name: sgd}], training.optimizer.lr: [0.1, 0.01]"

    trials = load_sweep(write("mine.yaml", f"grid: {{{optimizers}}}")).trials

    assert [tuple(trial.values.values()) for trial in trials] == [
        ("adam", 0.1),
        ("adam", 0.01),
        ("sgd", 0.1),
        ("sgd", 0.01),
    ]


def test_text_beyond_ascii_stays_text(write):
    labels = ["\U0001f600", "\u00e9\u2028\u0085", "\u6f22" * 60]
    texts = ", ".join('"' + "".join(f"\\U{ord(letter):08x}" for letter in label) + '"' for label in labels)

    trials = load_sweep(write("mine.yaml", f"grid: {{method.label: [{texts}]}}")).trials

    for trial, label in zip(trials, labels, strict=True):
        assert made(trial) == trial.config
        assert trial.config.method.label == label
        assert len(trial.name.encode()) <= 100
        assert "\n" not in shlex.join(trial.words)


def test_text_that_yaml_reads_as_something_else_stays_text(write):
    file = write("mine.yaml", 'grid: {method.label: ["on", "Off", "NULL", "plain"]}')

    for trial in load_sweep(file).trials:
        assert made(trial) == trial.config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "grid: {run.seed: [0, '0']}",
            "mine.yaml: trials seed0 and seed-0 have the same config. Give each its own values.",
        ),
        (
            f"random: {{run.seed: {{int: [0, 1{'0' * 400}]}}}}",
            f"random.run.seed: int takes [low, high], low at most high, not [0, 1{'0' * 52}... (mine.yaml:1).",
        ),
        (
            "<<: {grid: {run.seed: [0, 1], run.rounds: [0]}}",
            "run.rounds: must be a whole number of at least 1, not 0 (mine.yaml).",
        ),
        (
            "set: {run: null}\ngrid: {run.seed: [0, 1]}",
            "run: is null here, and run.seed is set too (mine.yaml:1). Leave one of them out.",
        ),
        ("gird: {run.seed: [0]}", "gird: unknown key (mine.yaml:1). Did you mean grid?"),
        ("grid: 3", "grid: must be a mapping, not 3 (mine.yaml:1)."),
        ("base: []", "mine.yaml: holds no trials. Give a grid, random or a list."),
        (
            "grid:\n  run.seed: 3",
            "grid.run.seed: expected a list of values, not 3 (mine.yaml:2). Write run.seed: [FIRST, SECOND].",
        ),
        ("grid:\n  run.sed: [0, 1]", "run.sed: unknown key (mine.yaml:2). Did you mean run.seed?"),
        (
            "grid:\n  run.rounds:\n  - 1\n  - 0",
            "run.rounds: must be a whole number of at least 1, not 0 (mine.yaml:4).",
        ),
        (
            "set:\n  partition:\n    alhpa: 3\ngrid: {run.seed: [0, 1]}",
            "partition.alhpa: unknown key (mine.yaml:3). Did you mean partition.alpha?",
        ),
        ("base: [bse.yaml]\ngrid: {run.seed: [0]}", "bse.yaml: no such file (mine.yaml:1). Did you mean base.yaml?"),
        (
            "grid:\n  files:\n  - base.yaml\n  - 3",
            "files: expected a path or a list of paths, not 3 (mine.yaml:4). They are relative to this file.",
        ),
        (
            "set: {run.name: x}\ngrid: {run.seed: [0]}",
            "run.name: a sweep sets it for each of its trials (mine.yaml:1). Take it out.",
        ),
        (
            "grid: {run.seed: [0]}\nmax_concurrent: 0",
            "max_concurrent: must be a whole number of at least 1 or null, not 0 (mine.yaml:2).",
        ),
        (
            "grid: {run.seed: [0]}\nnum_samples: 2",
            "num_samples: nothing is drawn (mine.yaml:2). Take it out, or give random.",
        ),
        (
            "grid: {run.seed: [0]}\nasha: {grace_round: 2}",
            "asha.grace_round: unknown key (mine.yaml:2). Did you mean asha.grace_rounds?",
        ),
        (
            "grid: {run.seed: [0]}\nasha:\n  reduction_factor: 1",
            "asha.reduction_factor: must be a number above 1, not 1 (mine.yaml:3).",
        ),
        (
            "grid: {run.seed: [0]}\nasha: {metric: test/acuracy/mean}",
            "asha.metric: unknown metric 'test/acuracy/mean' (mine.yaml:2). Did you mean test/accuracy/mean?",
        ),
        (
            "name: a/b\ngrid: {run.seed: [0]}",
            "name: must be the name of one folder, not 'a/b' (mine.yaml:1). "
            "Set run.output_dir for the folder around it.",
        ),
        (
            "grid:\n  run.seed: [0, 0]",
            "mine.yaml: 2 trials are alike or have values that read alike (seed0). Give each its own values.",
        ),
        (
            "grid:\n  run.output_dir: [a, b]",
            "run.output_dir: differs between trials output_dir-a and output_dir-b (mine.yaml). "
            "Set it under set, or on the command line.",
        ),
        (
            "random:\n  run.seed: 3",
            "random.run.seed: expected one distribution, not 3 (mine.yaml:2). "
            "Write {uniform: [0, 1]}, {log_uniform: [1e-4, 1e-2]}, {int: [1, 8]} or {choice: [a, b]}.",
        ),
        (
            "random:\n  run.seed: {itn: [1, 2]}",
            "random.run.seed: unknown distribution 'itn' (mine.yaml:2). Did you mean int?",
        ),
        (
            "random:\n  run.seed: {log_uniform: [0, 2]}",
            "random.run.seed: log_uniform takes [low, high], low above 0 and at most high, not [0, 2] (mine.yaml:2).",
        ),
        (
            "list:\n- 3",
            "list[0]: expected keys with values, not 3 (mine.yaml:2). Write {run.seed: 1, partition.alpha: 0.5}.",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(write, text, problem):
    write("base.yaml", "run: {rounds: 1}")

    assert problems(write("mine.yaml", text)) == [problem]


@pytest.mark.parametrize("override", ["run.seed=7", "run={seed: 7}", "partition.alpha.x=1"])
def test_what_a_trial_is_called_by_cannot_be_overridden(write, override):
    (line,) = problems(write("mine.yaml", "grid: {partition.alpha: [0.1, 0.5], run.seed: [0, 1]}"), override)

    key = override.partition("=")[0]
    swept = "partition.alpha" if "alpha" in key else "run.seed"
    assert line == (
        f"{key}: the command line gives it to all trials, and the sweep gives {swept} to some (mine.yaml:1). "
        "Leave one of them out."
    )


def test_a_mistake_that_all_trials_share_is_told_once(write):
    assert problems(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}"), "run.rounds=0", "run.sed=1") == [
        "run.sed: unknown key (command line). Did you mean run.seed?",
        "run.rounds: must be a whole number of at least 1, not 0 (command line).",
    ]


def test_what_a_job_would_lose_is_refused_in_a_job(write, monkeypatch):
    file = write("mine.yaml", "grid: {run.seed: [0, 1]}")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    (problem,) = problems(file)

    assert problem.startswith("run.output_dir: must be an absolute path in a job")
    assert load_sweep(file, ["run.output_dir=/somewhere"]).path == Path("/somewhere/mine")


def test_a_sweep_changes_nothing_but_name_and_place(write):
    (trial,) = load_sweep(write("mine.yaml", "list: [{run.seed: 0}]")).trials

    assert trial.config.training == Config().training
    assert trial.config.data == Config().data
