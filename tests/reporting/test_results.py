import json
import math

import pytest

from fedvtc.commands.main import main
from fedvtc.reporting.charts.all import figures_of
from fedvtc.reporting.results import groups_of, read_results
from fedvtc.reporting.run_numbers import ACCURACY, TARGET_ROUNDS, numbers_of


def read(*folders):
    runs, problems = read_results(folders)
    return runs, problems


def test_runs_that_differ_in_their_seed_are_one_group(fake_run, tmp_path):
    for seed in (10, 2):
        fake_run("FedVTC", seed)
    fake_run("Local", 0)
    runs, problems = read(tmp_path / "runs")
    assert problems == []
    assert [(run.group, run.seed) for run in runs] == [("FedVTC", "2"), ("FedVTC", "10"), ("Local", "0")]
    assert {group: len(members) for group, members in groups_of(runs).items()} == {"FedVTC": 2, "Local": 1}


def test_the_most_accurate_group_comes_first_and_unevaluated_runs_last(fake_run, write_run, tmp_path):
    for label, right in (("A", 0.3), ("B", 0.6), ("C", 0.5)):
        fake_run(label, 0, right=right)
    write_run(tmp_path / "runs/0", ["method.label=0"], [{"round": 1, "phase": "round"}])
    assert [run.group for run in read(tmp_path / "runs")[0]] == ["B", "C", "A", "0"]


def test_other_settings_set_groups_of_a_method_apart(fake_run, tmp_path):
    fake_run("FedVTC", 0)
    fake_run("FedVTC", 0, partition={"alpha": 1.0}, placement={"pool": "ray"})
    fake_run("Local", 0)
    # The run of another method is comparable with one of the two only.
    named = ["FedVTC, alpha 0.1", "FedVTC, alpha 1.0", "Local, alpha 0.1"]
    assert [run.group for run in read(tmp_path / "runs")[0]] == named


def test_data_sets_that_differ_between_methods_are_named(fake_run, tmp_path):
    fake_run("FedVTC", 0, data={"name": "mnist"})
    fake_run("Local", 0, data={"name": "digits"}, training={"batch_size": 8})
    assert [run.group for run in read(tmp_path / "runs")[0]] == ["FedVTC, data mnist", "Local, data digits"]


def test_reports_and_tables_tell_runs_apart_by_one_rule(fake_run, tmp_path, capsys):
    """Keys that change no result set nothing apart: evaluations, the folder of the data, the layout."""
    fake_run("Mine", 0)
    fake_run("Mine", 1, evaluate={"every": 5}, data={"root": "elsewhere"}, runtime={"retries": 1})
    fake_run("Mine", 2, evaluate={"validation_share": 0.5})
    fake_run("Mine", 3, method={"name": "another", "label": "Mine"})
    runs, _ = read(tmp_path / "runs")
    named = "Mine, validation_share {}, method {}"
    assert {run.seed: run.group for run in runs} == {
        "0": named.format("0.0", "mine"),
        "1": named.format("0.0", "mine"),
        "2": named.format("0.5", "mine"),
        "3": named.format("0.0", "another"),
    }
    assert main(["table", str(tmp_path / "runs"), "--metric", ACCURACY, "--format", "csv"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith("evaluate.validation_share,method.name,trials,")
    assert len(rows) == len(groups_of(runs)) == 3


def test_a_run_is_measured_by_its_newest_evaluation(fake_run):
    (finished,), _ = read(fake_run("FedVTC", 0))
    # Five of ten images, one more in each of three rounds, and one more in the last step.
    assert round(finished.numbers[ACCURACY], 6) == 0.9
    assert [row["accuracy"] for row in finished.rows] == [0.9] * 4
    (running,), _ = read(fake_run("FedVTC", 1, is_finished=False))
    assert round(running.numbers[ACCURACY], 6) == 0.8
    assert (running.facts.status.name, len(running.rows)) == ("killed", 4)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_number_that_is_not_finite_is_shown_and_is_never_the_best(value, fake_run, tmp_path, capsys):
    """fedvtc writes null for such a number; records and long CSV files of other programs may hold one."""
    for label, right in (("A", 0.3), ("B", 0.5), ("C", 0.2)):
        fake_run(label, 0, right=right)
    broken = fake_run("C", 1)
    first, *records = (broken / "metrics.jsonl").read_text().splitlines()
    records = [json.dumps({**json.loads(line), ACCURACY: value, "time/train": value}) for line in records]
    (broken / "metrics.jsonl").write_text("\n".join([first, *records, ""]))

    runs, problems = read(tmp_path / "runs")
    assert (problems, [run.group for run in runs]) == ([], ["B", "A", "C", "C"])
    figures = {figure.name: figure for figure in figures_of(runs)}
    # The chart draws the finite value, the CSV has all.
    first = next(row for row in figures["curves"].rows if row["group"] == "C")
    assert first[ACCURACY] == pytest.approx(0.45)
    assert f"C,accuracy,{value}" in figures["summary"].csv()
    assert numbers_of(runs[-1].records, 0.95).keys().isdisjoint({TARGET_ROUNDS})
    words = ["table", str(tmp_path / "runs"), "--metric", ACCURACY, "--format", "markdown", "--compare", "A", "--ranks"]
    assert main([*words, "--sort", ACCURACY]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == ["| B", "| A", "| C"]
    assert [row[1].split()[0] for row in rows[2:]] == ["**0.9000**", "<ins>0.7000</ins>", str(value)]
    assert main(["show", str(broken)]) == 0
    shown = capsys.readouterr().out
    assert f"0.600 to {value}\n" in shown
    assert "best 0.600 in round 1, 4 evaluations\n" in shown


def test_a_damaged_run_is_left_out_with_a_line(fake_run, tmp_path):
    (fake_run("Local", 0) / "metrics.jsonl").write_text("null\n")
    (fake_run("Local", 1) / "config.yaml").write_text("- 1\n")
    (fake_run("Local", 2) / "run.json").write_text("{")
    worded = fake_run("Local", 4) / "metrics.jsonl"
    worded.write_text(worded.read_text().replace("500000", '"much"', 1))
    fake_run("Local", 3)
    runs, problems = read(tmp_path / "runs")
    assert [run.seed for run in runs] == ["3"]
    assert len(problems) == 4
    assert all("left out, damaged" in problem for problem in problems)
