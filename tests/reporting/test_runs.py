import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedvtc.config import load
from fedvtc.errors import UserError
from fedvtc.learning.methods import config_classes
from fedvtc.reporting.run_folders import find_runs
from fedvtc.reporting.runs import Selection, read_runs, runs_as_csv, runs_as_json, runs_table
from fedvtc.storage.lock import locked

ROUND = {"round": 1, "phase": "round", "test/accuracy/mean": 0.25, "test/accuracy/min": 0.1}
FINAL = {
    "round": 2,
    "phase": "final",
    "test/accuracy/mean": 0.5004,
    "test/accuracy/min": 0.3,
    "test/accuracy/held/mean": 0.9,
    "test/accuracy/missing/mean": None,
}


def words(text: str) -> list[str]:
    return text.split()


def shown(*folders: Path, width: int = 250, **selection: Any) -> tuple[list[list[str]], list[str]]:
    """The cells of each row, and the lines below."""
    table, lines = runs_table(folders, width, Selection(**selection))
    if table is None:
        return [], lines
    printed = io.StringIO()
    Console(width=width, file=printed).print(table)
    return [row.split() for row in printed.getvalue().splitlines()], lines


def test_a_run_is_one_row_with_its_last_evaluation(write_run: Any, tmp_path: Path):
    overrides = ["run.rounds=2", "run.seed=3", "method.name=local", "data.name=mnist", "partition.kind=iid"]
    write_run(tmp_path / "first", overrides, [ROUND, FINAL])
    rows, lines = shown(tmp_path)
    assert rows[0] == words("run data partition clients method seed round accuracy worst held missing status")
    assert rows[1:] == [words("first mnist iid 8 local 3 2/2 0.500 0.300 0.900 - finished")]
    assert str(tmp_path / "first") in lines
    config = tmp_path / "first" / "config.yaml"
    assert lines[-1] == f"Next: fedvtc plan {config}, or fedvtc run {config} run.name=null run.seed=4"


def test_the_next_command_of_a_trial_needs_no_name_and_leaves_the_folder_of_the_sweep(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "a", ["run.resume=auto", "run.name=a"], [ROUND, FINAL])
    command = shown(tmp_path)[1][-1].split(", or ")[1]
    word, run, *words = command.split()
    assert (word, run, "run.output_dir=outputs" in words) == ("fedvtc", "run", True)
    assert load(words[:1], words[1:], methods=config_classes()).run.resume == "never"


def test_the_round_counts_on_without_an_evaluation(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "a", ["method.label=Mine"], [ROUND, {"round": 4, "phase": "round"}], status="running")
    with locked(tmp_path / "a"):
        rows, _ = shown(tmp_path)
    assert rows[1] == words("a digits dirichlet 0.1 8 Mine 0 4/10 0.250 0.100 - - running")


def test_a_run_before_its_first_round_is_shown(write_run: Any, tmp_path: Path):
    (write_run(tmp_path / "a", ["partition.kind=shards"], [], status="running") / "metrics.jsonl").unlink()
    with locked(tmp_path / "a"):
        rows, _ = shown(tmp_path / "a")
    assert rows[1] == words("a digits shards 2 8 fedvtc 0 0/10 - - - - running")


def test_a_run_without_its_process_is_killed_and_can_be_resumed(write_run: Any, tmp_path: Path):
    folder = write_run(tmp_path / "my run", [], [ROUND], status="running")
    rows, lines = shown(tmp_path)
    assert rows[1][-1] == "killed"
    assert f"{folder}: killed (its process ended without writing a status)." in lines
    assert lines[-1] == f"Next: fedvtc resume '{folder}'"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_ended_early_is_shown_with_its_reason(write_run: Any, tmp_path: Path, status: str):
    reason = "client 0, round 2, train: the loss is nan"
    folder = write_run(tmp_path / "a", [], [ROUND], status=status, reason=reason)
    rows, lines = shown(tmp_path)
    assert rows[1][-1] == status
    assert f"{folder}: {status} ({reason})." in lines
    assert lines[-1] == f"Next: fedvtc resume {folder}"


def test_a_narrow_terminal_shows_numbers_for_names_and_one_row_per_run(write_run: Any, tmp_path: Path):
    long = "digits-dirichlet0.1-FedVTC+-s0-20261122-19023"
    for number in range(10):
        overrides = [f"run.seed={number % 3}", f"method.name={'local' if number else 'fedproto'}"]
        write_run(tmp_path / f"{long}{number}", overrides, [ROUND], created=f"2026-01-{number + 10}")
    rows, lines = shown(tmp_path, width=80)
    assert rows[0] == words("run method seed round accuracy worst held missing status")
    assert rows[1] == words("1 fedproto 0 1/10 0.250 0.100 - - finished")
    assert len(rows) == 11
    assert lines[0] == "all runs: data digits, partition dirichlet 0.1, clients 8"
    assert f" 1  {tmp_path}/{long}0" in lines
    assert f"10  {tmp_path}/{long}9" in lines


def test_runs_are_in_order_of_age_and_shown_once(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "x" / "young", [], [], created="2026-02-02")
    write_run(tmp_path / "x" / "old", [], [], created="2026-01-01")
    rows, _ = shown(tmp_path, tmp_path / "x", tmp_path / "x" / "old")
    assert [row[0] for row in rows[1:]] == ["old", "young"]


def test_runs_are_found_at_most_two_levels_deep(write_run: Any, tmp_path: Path):
    write_run(tmp_path / "a" / "b", [], [])
    write_run(tmp_path / "a" / "c" / "too_deep", [], [])
    assert find_runs([tmp_path]) == ([tmp_path / "a" / "b"], [])


def test_a_folder_with_a_config_hides_no_run_below(write_run: Any, tmp_path: Path):
    run = write_run(tmp_path / "group" / "a", [], [ROUND])
    (tmp_path / "group" / "config.yaml").write_text((run / "config.yaml").read_text())
    rows, lines = shown(tmp_path)
    assert [row[0] for row in rows[1:]] == ["a"]
    assert not any("not shown" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", None),
        ("config.yaml", "run: ["),
        ("config.yaml", "run: 3"),
        ("config.yaml", None),
        ("metrics.jsonl", 'damaged\n{"round": 1, "phase": "round"}\n'),
        ("metrics.jsonl", '{"round": 1}\n'),
    ],
)
def test_a_damaged_folder_is_a_line_and_the_others_are_shown(
    write_run: Any, tmp_path: Path, name: str, content: str | None, golden: Any, keys_of: Any
):
    write_run(tmp_path / "good", [], [ROUND])
    damaged = write_run(tmp_path / "bad", [], [ROUND])
    if content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_text(content)
    rows, lines = shown(tmp_path)
    assert [row[0] for row in rows[1:]] == ["good"]
    (line,) = (line for line in lines if str(damaged) in line)
    assert keys_of(line) == [str(damaged)]
    golden(line)


def test_a_folder_that_cannot_be_read_is_a_line_and_the_others_are_shown(write_run: Any, tmp_path: Path):
    folder = tmp_path
    while len(str(folder)) < 3900:
        folder /= "x" * 50
    write_run(folder / "good", [], [ROUND])
    # Root may read every folder, but the system accepts no path in the first folder, nor that of the second.
    unreadable = [folder / ("y" * (4089 - len(str(folder)))), folder / ("z" * 250)]
    opened = os.open(folder, os.O_RDONLY)
    for path in unreadable:
        os.mkdir(path.name, dir_fd=opened)
    os.close(opened)
    (folder / "a_file").touch()
    rows, lines = shown(folder)
    assert [row[0] for row in rows[1:]] == ["good"]
    expected = [f"{path}: not shown (File name too long)." for path in unreadable]
    assert [line for line in lines if "not shown" in line] == expected


def test_a_torn_last_line_is_no_damage(write_run: Any, tmp_path: Path):
    folder = write_run(tmp_path / "a", [], [ROUND])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "test/acc')
    rows, _ = shown(folder)
    assert rows[1][-6:-4] == ["1/10", "0.250"]


def test_no_runs(tmp_path: Path, golden: Any, keys_of: Any):
    rows, (line,) = shown(tmp_path)
    assert rows == []
    golden(line)
    with pytest.raises(UserError) as caught:
        runs_table([tmp_path / "absent"], 80)
    assert keys_of(caught.value) == [f"{tmp_path}/absent"]
    golden(caught.value)


@pytest.fixture
def three_runs(write_run: Any, tmp_path: Path) -> Path:
    for name, overrides, record in (
        ("a", ["run.seed=2", "method.label=Mine"], ROUND | {"bytes/up/x": 7}),
        ("b", ["run.seed=10", "training.optimizer.lr=0.5"], ROUND | {"test/accuracy/mean": 0.75, "bytes/up/x": 1500}),
        ("c", ["run.seed=1", "training.optimizer.lr=0.5"], {"round": 1, "phase": "round"}),
    ):
        status = {"status": "failed", "reason": "client 3 failed"} if name == "c" else {}
        write_run(
            tmp_path / name, overrides, [record, record | {"round": 2}], created=f"2026-01-0{ord(name) - 96}", **status
        )
    return tmp_path


def test_runs_are_selected_and_sorted_by_any_value(three_runs: Path):
    def names(**selection: Any) -> list[str]:
        return [row[0] for row in shown(three_runs, **selection)[0][1:]]

    assert names(where={"training.optimizer.lr": ["0.5"]}) == ["b", "c"]
    assert names(where={"status": ["failed"], "training.optimizer.lr": ["0.5"]}) == ["c"]
    assert names(where={"seed": ["1", "2"]}) == ["a", "c"]
    assert names(sort="seed") == ["c", "a", "b"]
    # A run without the number is last.
    assert names(sort="accuracy") == ["a", "b", "c"]
    assert names(sort="bytes/up", reverse=True) == ["b", "a", "c"]
    # Runs exist, so the line does not tell to start a run.
    assert shown(three_runs, where={"seed": ["7"]}) == (
        [],
        [f"No run in {three_runs} has these values. Without --where, the list shows all runs."],
    )


def test_columns_are_settings_and_numbers(three_runs: Path, golden: Any):
    rows, lines = shown(three_runs, columns=["method", "training.optimizer.lr", "bytes/up", "test/accuracy/mean"])
    assert rows[0] == words("run method training.optimizer.lr bytes/up test/accuracy/mean")
    assert rows[1] == words("a Mine 0.001 14 B 0.25")
    assert rows[2] == words("b fedvtc 0.5 3.0 kB 0.75")
    assert rows[3] == words("c fedvtc 0.5 0 B -")
    assert f"{three_runs / 'c'}: failed (client 3 failed)." in lines
    with pytest.raises(UserError) as caught:
        shown(three_runs, columns=["methd"])
    golden(caught.value)
    with pytest.raises(UserError) as caught:
        shown(three_runs, sort="qqqqq")
    golden(caught.value)


def test_a_list_can_be_read_by_programs(three_runs: Path):
    rows, _ = read_runs([three_runs], Selection(sort="seed"))
    first, second, _ = json.loads(runs_as_json(rows, None))
    assert (first["seed"], first["accuracy"], first["status"], first["reason"]) == (
        1,
        None,
        "failed",
        "client 3 failed",
    )
    assert (second["run"], second["round"], second["rounds"], second["accuracy"]) == ("a", 2, 10, 0.25)
    found = list(csv.DictReader(io.StringIO(runs_as_csv(rows, ["run", "bytes/up", "accuracy"]))))
    assert found[0] == {"run": "c", "bytes/up": "0.0", "accuracy": ""}
    assert found[2] == {"run": "b", "bytes/up": "3000.0", "accuracy": "0.75"}


def test_each_run_keeps_one_line_at_80_columns(write_run: Any, tmp_path: Path):
    for number in range(12):
        label = f'method.label="A long name of a method with the number {number}"'
        if number == 11:
            label = 'method.label="A name of\\ntwo lines, ' + "and of very many words, " * 9 + '"'
        kind = "partition.kind=iid" if number % 2 else "partition.kind=shards"
        overrides = [label, kind, f"run.seed={number}", f"population.num_clients={8 + number}"]
        write_run(tmp_path / f"{number}", overrides, [FINAL], status="interrupted")
    table, lines = runs_table([tmp_path], 80)
    printed = io.StringIO()
    Console(width=80, file=printed).print(table)
    rows = printed.getvalue().splitlines()
    assert len(rows) == 13
    assert all(row.split()[-1] == "interrupted" and "0.500" in row for row in rows[1:])
    assert any(line.startswith("not shown at 80 columns: missing, held") for line in lines)
