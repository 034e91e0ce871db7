"""`fedvtc table` refuses, or shows apart, runs that are not equal but for their seed; trials of a sweep that wait."""

import csv
import io
import json
import re

import pytest
import yaml

from fedvtc.commands.main import main
from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.results import results

ACCURACY = "test/accuracy/mean"


def cells(markdown):
    return [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]


@pytest.fixture
def make_sweep(tmp_path, write_run):
    """A function that makes a sweep folder of (values, further keys, accuracy); accuracy None has not started."""

    def make(trials, name="own", **definition):
        folder, planned = tmp_path / name, {}
        folder.mkdir()
        for number, (values, keys, accuracy) in enumerate(trials):
            planned[f"trial{number}"] = {"values": values, "run": []}
            if accuracy is not None:
                settings = {"run.rounds": 2, "method.name": "local", **values, **keys}
                settings["method.label"] = settings.pop("label", None)
                overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
                write_run(folder / f"trial{number}", overrides, records_of(settings["run.rounds"], accuracy))
        (folder / "sweep.yaml").write_text(yaml.safe_dump({**definition, "trials": planned}, sort_keys=False))
        return folder

    return make


def records_of(num_rounds, accuracy):
    rounds = [{"round": number, "phase": "round", ACCURACY: accuracy} for number in range(1, num_rounds + 1)]
    return [*rounds, {"round": num_rounds, "phase": "final", ACCURACY: accuracy}]


def printed(capsys, *words):
    assert main(["table", *map(str, words)]) == 0
    return capsys.readouterr().out


def accuracies(capsys, *words):
    """The rows of a Markdown table of mean accuracies, without marks, and after the headings."""
    _, _, *rows = cells(printed(capsys, *words, "--metric", ACCURACY, "--format", "markdown"))
    return [[re.sub(r"\*|</?ins>", "", text) for text in row] for row in rows]


def test_seeds_with_different_numbers_of_rounds_are_not_mixed(make_sweep, capsys, golden):
    trials = [({"run.seed": seed}, {"run.rounds": (4, 2, 2)[seed]}, 0.5 + seed / 10) for seed in range(3)]
    sweep = make_sweep(trials)

    assert main(["table", str(sweep)]) == 2
    golden(capsys.readouterr().err)

    assert accuracies(capsys, sweep, "--where", "run.rounds=2") == [["0.6500 +- 0.0707"]]
    assert accuracies(capsys, sweep, "--rows", "run.rounds") == [["4", "0.5000 (n=1)"], ["2", "0.6500 +- 0.0707"]]


def test_a_sweep_may_get_another_label(make_sweep, capsys):
    labels = [{"method.name": "local", "label": label} for label in ("Old", "New")]
    assert accuracies(capsys, make_sweep([({"run.seed": seed}, labels[seed], 0.5) for seed in (0, 1)])) == [
        ["0.5000 +- 0.0000"]
    ]


def test_a_finished_trial_waits_if_the_sweep_asks_for_more_rounds(tmp_path, write_run, capsys):
    file, here = tmp_path / "longer.yaml", f"run.output_dir={tmp_path}"
    file.write_text("grid: {run.seed: [0, 1, 2]}\nset: {method.name: local}\n")
    folder = SweepFolder(load_sweep(file, ["run.rounds=4", here]))
    with folder.opened():
        for seed, num_rounds in enumerate((4, 2, 2)):
            keys = [f"run.rounds={num_rounds}", f"run.seed={seed}", "method.name=local", here]
            records = records_of(num_rounds, 0.5 + seed / 10)
            write_run(folder.path / f"seed{seed}", keys, records, id="0123abcd", attempts=[{"x": 1}])

    table = printed(capsys, folder.path, "--format", "markdown")
    assert "| 1/3 | 0.5000 |" in table
    assert results(folder).markdown == f"# longer\n\n{table}"
    assert main(["watch", str(folder.path)]) == 0
    assert "1/3 done (1 finished, 2 waiting)" in capsys.readouterr().out


def test_a_trial_that_was_stopped_early_counts_once_it_has_finished(make_sweep, capsys):
    sweep = make_sweep([({"run.seed": seed}, {}, 0.5 + seed / 5) for seed in range(2)])
    (sweep / "stopped_early.json").write_text(json.dumps({"trial1": 1}))

    assert accuracies(capsys, sweep) == [["0.6000 +- 0.1414"]]
    assert main(["watch", str(sweep)]) == 0
    assert "2/2 done (2 finished)" in capsys.readouterr().out

    run = json.loads((sweep / "trial1/run.json").read_text())
    (sweep / "trial1/run.json").write_text(json.dumps({**run, "status": "interrupted"}))
    assert "| 1/2, 1 stopped | 0.5000 |" in printed(capsys, sweep, "--format", "markdown")


def test_a_trial_that_has_not_started_decides_no_keys_of_two_sweeps(make_sweep, capsys):
    seeds = [{"run.seed": 0}, {"run.seed": 1}]
    first = make_sweep([(values, {}, 0.5) for values in seeds], "first")
    longer = {"run.rounds": 3}
    second = make_sweep([(seeds[0], longer, 0.7), (seeds[1], longer, None)], "second")

    table = printed(capsys, first, second, "--format", "csv")
    assert table.startswith("run.rounds,trials,")
    rows = list(csv.DictReader(io.StringIO(table)))
    # The trial has the settings of its sibling.
    assert [(row["run.rounds"], row["trials"], row["finished"]) for row in rows] == [("2", "2", "2"), ("3", "2", "1")]
    unstarted = make_sweep([(values, longer, None) for values in seeds], "unstarted")
    assert accuracies(capsys, first, unstarted)[0][-1] == "0.5000 +- 0.0000"


@pytest.fixture
def epochs(make_sweep):
    """A sweep of Local, which has no fine-tuning, and FedVTC with two numbers of epochs of fine-tuning."""
    ours = {"label": "Ours", "method.name": "fedvtc"}
    trials = [({"label": "Alone"}, 0.3)]
    trials += [({**ours, "method.finetune.epochs": epochs}, 0.4 + epochs / 10) for epochs in (1, 2)]
    return make_sweep([(values, {"run.seed": 0}, accuracy) for values, accuracy in trials])


@pytest.mark.parametrize("words", [[], ["--rows", "method", "--columns", "method.finetune.epochs"]])
def test_the_baseline_needs_no_keys_of_another_method(epochs, capsys, words):
    rows = ["--rows", "method,method.finetune.epochs"]
    found = accuracies(capsys, epochs, *(words or rows), "--compare", "Alone")
    texts = [text for row in found for text in row if text.endswith("(n=1)")]
    assert texts == ["+0.2000 (n=1)", "+0.3000 (n=1)"]


def test_a_baseline_that_fits_several_rows_or_none_is_one_line(epochs, make_sweep, capsys, golden, tmp_path):
    rows = ["--rows", "method,method.finetune.epochs"]
    assert main(["table", str(epochs), *rows, "--compare", "Ours"]) == 2
    several = capsys.readouterr().err
    plus = {"label": "Plus", "method.name": "fedvtc", "method.finetune.epochs": 3}
    both = make_sweep([(plus, {"run.seed": 0}, 0.9)], "plus")
    assert main(["table", str(epochs), str(both), *rows, "--where", "method=Ours", "--where", "method=Plus"]) == 0
    capsys.readouterr()
    words = ["--where", "method=Ours", "--where", "method=Plus", "--compare", "Plus"]
    assert main(["table", str(epochs), str(both), *rows, *words]) == 2
    none = capsys.readouterr().err
    alphas = [({"label": label, "partition.alpha": alpha}, {}, 0.5) for label, alpha in (("A", 0.1), ("B", 1.0))]
    assert main(["table", str(make_sweep(alphas, "alphas")), "--compare", "A"]) == 2
    golden(several + none + capsys.readouterr().err)


def test_numbers_up_to_the_target_are_not_mixed_over_other_evaluations(make_sweep, capsys, golden, tmp_path):
    keys = [{"evaluate.every": every} for every in (1, 5, 5)]
    sweep = make_sweep([({"run.seed": seed}, keys[seed], 0.5) for seed in range(3)], target=0.4)

    # Without other keys of rows, the table shows the difference.
    table = printed(capsys, sweep, "--format", "markdown")
    assert [row[:2] for row in cells(table)[2:]] == [["1", "1/1"], ["5", "2/2"]]
    assert "evaluate.every (1, 5)" in table
    (tmp_path / "long.csv").write_text(printed(capsys, sweep, "--long"))
    assert printed(capsys, tmp_path / "long.csv", "--format", "markdown") == table

    # The final accuracy does not depend on other evaluations.
    assert accuracies(capsys, sweep, "--rows", "run.rounds") == [["2", "0.5000 +- 0.0000"]]
    for words in (["--format", "csv"], ["--metric", "target/bytes"]):
        assert main(["table", str(sweep), "--rows", "run.rounds", *words]) == 2
        message = capsys.readouterr().err
        assert "evaluate.every" in message
    golden(message)


def test_differences_up_to_the_target_are_not_taken_over_other_evaluations(make_sweep, capsys, golden):
    trials = [({"label": label}, {"evaluate.clients": clients}, 0.5) for label, clients in (("A", 2), ("B", "all"))]
    sweep = make_sweep(trials, target=0.4)
    words = [sweep, "--rows", "method", "--metric", "target/rounds"]

    assert "evaluate.clients (2, all)" in printed(capsys, *words, "--format", "markdown")
    assert main(["table", *map(str, words), "--compare", "A"]) == 2
    golden(capsys.readouterr().err)
