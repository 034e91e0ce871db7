import json
import math

import pytest
import yaml

from fedvtc.commands.main import main
from fedvtc.reporting.charts.all import FINISHED_ONLY, SO_FAR, figures_of
from fedvtc.reporting.charts.style import colour_of, places_of
from fedvtc.reporting.comparison.trials import DEFINITION, STOPPED_FILE, read_folders
from fedvtc.reporting.page.files import spec_of
from fedvtc.reporting.results import compared, groups_of, read_results, unfinished
from fedvtc.reporting.run_numbers import ACCURACY, TARGET_ROUNDS, numbers_of
from fedvtc.storage.run_folder import RunFolder


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


@pytest.fixture
def states(fake_run):
    """Folders by the state of the run; the unfinished runs are better than the finished one."""
    folders = {"finished": fake_run("Mine", 9, right=0.3)}
    for seed, state in enumerate(("failed", "interrupted", "killed", "stopped early")):
        folders[state] = fake_run("Mine", seed, is_finished=False)
    for state in ("failed", "interrupted"):
        RunFolder.open(folders[state]).set_status(state, reason="a reason")
    folders["incomplete"] = fake_run("Mine", 4)
    metrics = folders["incomplete"] / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    return folders


def test_a_run_is_finished_if_the_table_says_so(states, tmp_path):
    """One notion: also the last record counts, and a sweep knows which trials it has stopped."""
    sweep = tmp_path / "runs"
    trials = {folder.name: {"values": {"run.seed": seed}} for seed, folder in enumerate(states.values())}
    for is_sweep in (False, True):
        if is_sweep:
            (sweep / DEFINITION).write_text(yaml.safe_dump({"trials": trials}))
            (sweep / STOPPED_FILE).write_text(json.dumps({states["stopped early"].name: 3}))
        runs, problems = read(sweep)
        tables, _ = read_folders([sweep], None)
        in_table = {row.folder: row.status for table in tables for row in table.rows}
        assert problems == []
        assert {run.folder: run.state for run in runs} == in_table
        # Without the files of the sweep, a stopped trial is a killed run.
        expected = {folder: "killed" if state == "stopped early" else state for state, folder in states.items()}
        assert in_table == ({folder: state for state, folder in states.items()} if is_sweep else expected)
        # The finished run comes first, though its seed is the highest.
        assert [run.folder for run in compared(runs)] == [runs[0].folder] == [states["finished"]]
    words = "1 failed, 1 incomplete, 1 interrupted, 1 killed, 1 stopped early"
    assert unfinished(runs) == {"Mine": f"5 of 6 runs ({words})"}
    (sweep / DEFINITION).write_text("trials: 1")
    runs, problems = read(sweep)
    assert len(runs) == 6
    assert [problem.partition(":")[0] for problem in problems] == [str(sweep / DEFINITION)]


def test_unfinished_runs_do_not_change_the_order_of_groups(fake_run, tmp_path):
    for label, right in (("A", 0.3), ("B", 0.4)):
        fake_run(label, 0, right=right)
    fake_run("A", 1, right=0.6, is_finished=False)
    fake_run("C", 0, right=0.6, is_finished=False)
    runs, _ = read(tmp_path / "runs")
    assert list(groups_of(runs)) == ["B", "A", "C"]
    # Without a finished run the numbers so far decide: those of A are 0.9 on average.
    unfinished_runs = [run for run in runs if run.state != "finished"]
    assert compared(unfinished_runs) == unfinished_runs


def rows_of(figure, **values):
    found = [row for row in figure.rows if all(row[key] == value for key, value in values.items())]
    return [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()} for row in found
    ]


@pytest.fixture
def with_a_failure(fake_run, tmp_path):
    """Two methods with three seeds; the last run of FedProto failed after round 1, with an accuracy of 0.1."""
    for seed in range(3):
        fake_run("Local", seed, right=0.3)
    for seed in range(2):
        fake_run("FedProto", seed, right=0.5)
    run = fake_run("FedProto", 2, right=0.0, is_finished=False)
    for name, num_lines in (("metrics.jsonl", 1), ("clients.csv", 5)):
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(lines[:num_lines]))
    RunFolder.open(run).set_status("failed", reason="a reason")
    return read_results([tmp_path / "runs"])[0]


def test_figures_of_groups_have_finished_runs_only(with_a_failure):
    found = {figure.name: figure for figure in figures_of(with_a_failure, [0.05])}
    about = {"group": "FedProto", "metric": "accuracy"}
    assert rows_of(found["summary"], **about) == [{**about, "value": 0.9, "low": 0.9, "high": 0.9}]
    (row,) = rows_of(found["differences"], **about, **{"from": "Local"})
    assert (row["difference"], row["pairs"]) == (0.2, 2)
    # The same number of seeds in every point of a curve.
    assert {row["seeds"] for name in ("curves", "losses") for row in rows_of(found[name], group="FedProto")} == {2}
    assert {row["run"] for row in rows_of(found["clients"], group="FedProto")} == {
        "FedProto, seed 0",
        "FedProto, seed 1",
    }
    assert {row["clients"] for row in rows_of(found["architectures"], group="FedProto")} == {4}
    assert rows_of(found["time"], group="FedProto")[0]["value"] == 8.0
    assert rows_of(found["bytes-up"], group="FedProto")[0]["value"] == 2.0
    assert rows_of(found["cost-to-target"], group="FedProto")[0]["reached"] == "2 of 2"
    # Figures of one run have all runs.
    for name in ("sorted-clients", "recall"):
        assert "FedProto, seed 2" in {row["run"] for row in found[name].rows}
    assert {name for name, figure in found.items() if figure.note.endswith(FINISHED_ONLY)} == {
        name for name, figure in found.items() if figure.has_groups
    }


def test_figures_have_the_numbers_so_far_if_no_run_has_finished(fake_run, tmp_path):
    for label, right in (("A", 0.5), ("B", 0.3)):
        fake_run(label, 0, right=right, is_finished=False)
    runs, _ = read_results([tmp_path / "runs"])
    found = {figure.name: figure for figure in figures_of(runs)}
    assert rows_of(found["summary"], metric="accuracy") == [
        {"group": "A", "metric": "accuracy", "value": 0.8},
        {"group": "B", "metric": "accuracy", "value": 0.6},
    ]
    assert all(figure.note.endswith(SO_FAR) == figure.has_groups for figure in found.values())
    fake_run("B", 1, right=0.3)
    found = {figure.name: figure for figure in figures_of(read_results([tmp_path / "runs"])[0])}
    assert {row["group"] for row in found["summary"].rows} == {"B"}
    assert "differences" not in found
    # The group with a finished run comes first, in the colour that it always has.
    colour = spec_of(found["curves"], ("accuracy", "rounds"))["layer"][0]["encoding"]["color"]["scale"]
    assert colour == {"domain": ["B"], "range": [colour_of(places_of({"A": "A", "B": "B"})["B"])]}


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
