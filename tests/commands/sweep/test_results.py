"""The table of a sweep."""

import csv
import json
import math

import pytest
from rich.console import Console

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.results import results, write_results
from fedvtc.config import to_dict
from fedvtc.errors import RunFolderError
from fedvtc.reporting.comparison.terminal import print_sheet
from fedvtc.storage.run_folder import RunFolder

ACCURACY, WORST, MISSING = "test/accuracy/mean", "test/accuracy/min", "test/accuracy/missing/mean"


@pytest.fixture
def folder(write):
    """Three seeds of two values of alpha."""
    return SweepFolder(load_sweep(write("mine.yaml", "grid: {partition.alpha: [0.1, 0.5], run.seed: [0, 1, 2]}")))


def record(trial, status, *records):
    run = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    run.set_status(status)


def finish(trial, accuracy, *, worst=0.1, missing=0.0, seconds=1.0):
    final, num_rounds = {ACCURACY: accuracy, WORST: worst, MISSING: missing}, trial.config.run.rounds
    record(
        trial,
        "finished",
        # The final record counts, not the records of rounds.
        {"round": 1, "phase": "round", "bytes/up/prototypes": 70, ACCURACY: 0.99, "time/round": seconds},
        {"round": 2, "phase": "round", "bytes/up/prototypes": 70, "bytes/down/prototypes": 50, "time/round": seconds},
        *({"round": number, "phase": "round"} for number in range(3, num_rounds + 1)),
        {"round": num_rounds, "phase": "final", "bytes/down/prototypes": 10, **final, "time/round": seconds},
    )


def groups(found):
    return [found.table.groups[row, ()] for row in found.table.rows]


def rows(folder):
    with (folder.path / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_means_and_sample_deviations_over_seeds_worked_by_hand(folder):
    for trial, accuracy in zip(folder.sweep.trials[:3], (0.5, 0.6, 0.7), strict=True):
        finish(trial, accuracy, worst=accuracy / 2)

    write_results(folder)

    skewed, other = rows(folder)
    assert (skewed["partition.alpha"], skewed["trials"], skewed["finished"]) == ("0.1", "3", "3")
    assert math.isclose(float(skewed[ACCURACY]), 0.6)
    # Deviations -0.1, 0, 0.1: squares add up to 0.02, by n - 1 = 2 that is 0.01.
    assert math.isclose(float(skewed[f"{ACCURACY}/std"]), 0.1)
    assert math.isclose(float(skewed[f"{WORST}/std"]), 0.05)
    # 70 + 70 up and 50 + 10 down of each run.
    assert (float(skewed["bytes/up"]), float(skewed["bytes/down"]), float(skewed["bytes/up/std"])) == (140.0, 60.0, 0.0)
    assert (other["partition.alpha"], other["trials"], other["finished"], other[ACCURACY]) == ("0.5", "3", "0", "")
    assert (folder.path / "results.md").read_text().splitlines()[4:] == [
        "| partition.alpha | finished | accuracy | worst | held | missing | F1 | up | down |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 0.1 | 3/3 | 0.6000 +- 0.1000 | 0.3000 +- 0.0500 | - | 0.0000 +- 0.0000 | - | 140 B | 60 B |",
        "| 0.5 | 0/3 | - | - | - | - | - | - | - |",
    ]


@pytest.mark.parametrize("lost", [[-1], [0], [4], range(11)], ids=["final", "first", "middle", "all"])
def test_a_run_that_lacks_records_is_left_out_of_the_means(folder, lost):
    """After a full disk a finished run may lack records."""
    first, second, *_ = folder.sweep.trials
    finish(first, 0.5)
    finish(second, 0.7)
    file = second.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for number in sorted(lost, reverse=True):
        del lines[number]
    file.write_text("".join(lines))

    found = write_results(folder)

    assert (groups(found)[0].num_finished, found.incomplete_runs) == (1, [second.path])
    assert (rows(folder)[0]["finished"], rows(folder)[0][ACCURACY], rows(folder)[0]["bytes/up"]) == (
        "1",
        "0.5",
        "140.0",
    )


@pytest.mark.parametrize("change", [{ACCURACY: "high"}, {"bytes/up/prototypes": None}, {ACCURACY: [1]}])
def test_a_record_without_numbers_is_one_line(folder, keys_of, change):
    first = folder.sweep.trials[0]
    finish(first, 0.5)
    file = first.path / "metrics.jsonl"
    *lines, last = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(json.loads(last) | change)]))
    with pytest.raises(RunFolderError) as refused:
        write_results(folder)
    assert keys_of(refused.value) == [str(first.path)]


def test_markdown_characters_are_escaped(write):
    folder = SweepFolder(load_sweep(write("mine.yaml", 'grid: {method.label: ["a|b", "c\\nd"]}')))
    folder.path.mkdir(parents=True)

    write_results(folder)

    table = (folder.path / "results.md").read_text().splitlines()[4:]
    assert [line.split(" | ")[0] for line in table[2:]] == ["| a\\|b", "| c d"]


def test_a_null_value_differs_from_an_absent_value(write):
    text = "set: {partition.images_per_client: 20}\nlist: [{partition.images_per_client: null}, {run.seed: 1}]"

    found = results(SweepFolder(load_sweep(write("mine.yaml", text)))).table

    assert (found.row_keys, found.rows) == (("partition.images_per_client",), (("null",), ("",)))


def test_only_finished_runs_count(folder):
    first, second, third, *_ = folder.sweep.trials
    finish(first, 0.5)
    record(second, "failed", {"round": 1, "phase": "round", ACCURACY: 0.9})
    record(third, "running", {"round": 1, "phase": "round", ACCURACY: 0.9})

    write_results(folder)

    row = rows(folder)[0]
    # One value has no deviation.
    assert (row["finished"], row[ACCURACY], row[f"{ACCURACY}/std"]) == ("1", "0.5", "")


def test_a_metric_that_some_runs_lack_is_a_mean_over_the_others(folder):
    first, second, *_ = folder.sweep.trials
    finish(first, 0.5, missing=None)
    finish(second, 0.5, missing=0.25)

    write_results(folder)

    assert (rows(folder)[0][MISSING], rows(folder)[0][f"{MISSING}/std"]) == ("0.25", "")


def test_a_run_with_a_damaged_record_is_not_in_the_means(folder):
    first, second, *_ = folder.sweep.trials
    finish(first, 0.5)
    finish(second, 0.7)
    with (second.path / "metrics.jsonl").open("a") as file:
        file.write("{\n")

    found = write_results(folder)

    assert (groups(found)[0].num_finished, found.incomplete_runs) == (1, [second.path])
    assert rows(folder)[0][ACCURACY] == "0.5"


def test_measured_times_are_printed_and_not_written(folder):
    finish(folder.sweep.trials[0], 0.5, seconds=11.0)
    found = write_results(folder)
    before = (folder.path / "results.csv").read_bytes()
    console = Console(width=160)

    with console.capture() as shown:
        print_sheet(found.sheet, console, is_terminal=True)

    assert groups(found)[0].numbers("time/round") == {"0": 33.0}
    assert "33" in shown.get()
    assert b"33" not in before


def test_groups_keep_the_order_of_the_sweep_file_and_values_may_be_lists(write):
    file = write(
        "mine.yaml",
        "grid: {population.backbones: [[{name: cnn_2x8, share: 1}], [{name: cnn_2x16, share: 1}]], run.seed: [1, 0]}",
    )
    folder = SweepFolder(load_sweep(file))

    found = results(folder)

    assert found.table.rows == (("[{'name': 'cnn_2x8', 'share': 1}]",), ("[{'name': 'cnn_2x16', 'share': 1}]",))
    assert [len(group.trials) for group in groups(found)] == [2, 2]


def test_values_with_the_same_short_text_get_separate_rows(write):
    names = [("cnn_2x16", "cnn_2x32", "cnn_3x16"), ("cnn_2x16", "cnn_2x32", "cnn_4x16")]
    lists = [
        [{"name": name, "share": 0.25} for name in three] + [{"name": "cnn_2x8", "share": 0.25}] for three in names
    ]
    grid = {"population.backbones": lists, "run.seed": [0, 1]}
    folder = SweepFolder(load_sweep(write("mine.yaml", json.dumps({"grid": grid}))))
    for trial, accuracy in zip(folder.sweep.trials, (0.1, 0.3, 0.7, 0.9), strict=True):
        finish(trial, accuracy)

    write_results(folder)

    assert [(json.loads(row["population.backbones"]), float(row[ACCURACY])) for row in rows(folder)] == [
        (lists[0], 0.2),
        (lists[1], 0.8),
    ]


def test_files_of_the_same_name_get_separate_rows(write):
    write("a/x.yaml", "run: {rounds: 1}")
    write("b/x.yaml", "run: {rounds: 2}")
    write("c/y.yaml", "run: {rounds: 3}")
    entries = "[{files: a/x.yaml, run.seed: 0}, {files: b/x.yaml, run.seed: 1}, {files: c/y.yaml, run.seed: 2}]"

    found = results(SweepFolder(load_sweep(write("mine.yaml", f"list: {entries}"))))

    assert (found.table.row_keys, found.table.rows) == (("files",), (('"a/x.yaml"',), ('"b/x.yaml"',), ("y",)))
    assert [len(group.trials) for group in groups(found)] == [1, 1, 1]


def test_trials_stopped_early_are_counted(write):
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1]}\nasha: {}")))
    finish(folder.sweep.trials[0], 0.5)
    record(folder.sweep.trials[1], "interrupted")
    folder.add_stopped_early("seed1", 1)

    write_results(folder)

    assert (rows(folder)[0]["finished"], rows(folder)[0]["stopped_early"]) == ("1", "1")
    assert "| 1/2, 1 stopped |" in (folder.path / "results.md").read_text()


def test_numbers_up_to_a_target_worked_by_hand(write):
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1]}\nset: {run.rounds: 3}\ntarget: 0.6")))
    curves = [(0.5, 0.6, 0.7), (0.5, 0.55, 0.58)]
    for trial, curve in zip(folder.sweep.trials, curves, strict=True):
        rounds = [
            {"round": number, "phase": "round", ACCURACY: accuracy, "bytes/up/a": 3e6, "bytes/down/b": 1e6}
            | {"time/round": 2.0, "time/client": 5.0, "time/train": 4.0, "time/server/fit": 0.5, "time/makespan": 9.0}
            | {"cpu/client": 4.0, "cpu/train": 3.0, "cpu/server": 0.25, "flops/train": 1e9, "flops/server/fit": 5e8}
            for number, accuracy in enumerate(curve, 1)
        ]
        final = {"round": 3, "phase": "final", ACCURACY: 0.59, "time/round": 1.0, "time/finetune": 7.0}
        record(trial, "finished", *rounds, final)

    found = write_results(folder)
    (row,) = groups(found)

    # The second run never reaches the target.
    assert row.numbers("target/rounds") == {"0": 2.0}
    assert (row.numbers("target/bytes"), row.numbers("target/seconds")) == ({"0": 8e6}, {"0": 4.0})
    # Three rounds of 5 s on clients and 0.5 s on the server, and 7 s after the last round.
    assert row.numbers("time/client") == {"0": 23.5, "1": 23.5}
    assert row.numbers("time/round") == {"0": 7.0, "1": 7.0}
    # Three rounds of 4 s on clients and 0.25 s on the server.
    assert row.numbers("cpu/total") == {"0": 12.75, "1": 12.75}
    assert row.numbers("flops/total") == {"0": 4.5e9, "1": 4.5e9}
    assert (rows(folder)[0]["target/rounds"], rows(folder)[0]["target/bytes"]) == ("2.0", "8000000.0")
    heading, _, line = (folder.path / "results.md").read_text().splitlines()[4:]
    assert heading.endswith("| up | down | rounds to 0.6 | MB to 0.6 |")
    assert line.endswith("| 9.0 MB | 3.0 MB | 2 (1/2) | 8.00 (1/2) |")
    console = Console(width=200)
    with console.capture() as capture:
        print_sheet(found.sheet, console, is_terminal=True)
    assert capture.get().split("MB to 0.6")[1].split()[:6] == ["CPU", "s", "FLOPs", "memory", "seconds", "s"]
