import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedvtc.config import Config, load, to_yaml
from fedvtc.errors import UserError
from fedvtc.learning.methods import config_classes
from fedvtc.reporting.runs import find_runs, runs_table
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


def write_run(folder: Path, overrides: Sequence[str], records: Sequence[dict[str, Any]], **run: str) -> Path:
    folder.mkdir(parents=True)
    config: Config = load([], overrides, methods=config_classes())
    description = {"id": "0a", "name": folder.name, "status": "finished", "created": "2026-01-01", **run}
    (folder / "run.json").write_text(json.dumps(description))
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def words(text: str) -> list[str]:
    return text.split()


def shown(*folders: Path, width: int = 250) -> tuple[list[list[str]], list[str]]:
    """The cells of each row, and the lines below."""
    table, lines = runs_table(folders, width)
    if table is None:
        return [], lines
    printed = io.StringIO()
    Console(width=width, file=printed).print(table)
    return [row.split() for row in printed.getvalue().splitlines()], lines


def test_a_run_is_one_row_with_its_last_evaluation(tmp_path: Path):
    overrides = ["run.rounds=2", "run.seed=3", "method.name=local", "data.name=mnist", "partition.kind=iid"]
    write_run(tmp_path / "first", overrides, [ROUND, FINAL])
    rows, lines = shown(tmp_path)
    assert rows[0] == words("run data partition clients method seed round accuracy worst held missing status")
    assert rows[1:] == [words("first mnist iid 8 local 3 2/2 0.500 0.300 0.900 - finished")]
    assert str(tmp_path / "first") in lines
    config = tmp_path / "first" / "config.yaml"
    assert lines[-1] == f"Next: fedvtc plan {config}, or fedvtc run {config} run.name=null run.seed=4"


def test_the_round_counts_on_without_an_evaluation(tmp_path: Path):
    write_run(tmp_path / "a", ["method.label=Mine"], [ROUND, {"round": 4, "phase": "round"}], status="running")
    with locked(tmp_path / "a"):
        rows, _ = shown(tmp_path)
    assert rows[1] == words("a digits dirichlet 0.1 8 Mine 0 4/10 0.250 0.100 - - running")


def test_a_run_before_its_first_round_is_shown(tmp_path: Path):
    (write_run(tmp_path / "a", ["partition.kind=shards"], [], status="running") / "metrics.jsonl").unlink()
    with locked(tmp_path / "a"):
        rows, _ = shown(tmp_path / "a")
    assert rows[1] == words("a digits shards 2 8 fedvtc 0 0/10 - - - - running")


def test_a_run_without_its_process_is_killed_and_can_be_resumed(tmp_path: Path):
    folder = write_run(tmp_path / "my run", [], [ROUND], status="running")
    rows, lines = shown(tmp_path)
    assert rows[1][-1] == "killed"
    assert f"{folder}: killed (its process ended without writing a status)." in lines
    assert lines[-1] == f"Next: fedvtc resume '{folder}'"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_ended_early_is_shown_with_its_reason(tmp_path: Path, status: str):
    reason = "client 0, round 2, train: the loss is nan"
    folder = write_run(tmp_path / "a", [], [ROUND], status=status, reason=reason)
    rows, lines = shown(tmp_path)
    assert rows[1][-1] == status
    assert f"{folder}: {status} ({reason})." in lines
    assert lines[-1] == f"Next: fedvtc resume {folder}"


def test_a_narrow_terminal_shows_numbers_for_names_and_one_row_per_run(tmp_path: Path):
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


def test_runs_are_in_order_of_age_and_shown_once(tmp_path: Path):
    write_run(tmp_path / "x" / "young", [], [], created="2026-02-02")
    write_run(tmp_path / "x" / "old", [], [], created="2026-01-01")
    rows, _ = shown(tmp_path, tmp_path / "x", tmp_path / "x" / "old")
    assert [row[0] for row in rows[1:]] == ["old", "young"]


def test_runs_are_found_at_most_two_levels_deep(tmp_path: Path):
    write_run(tmp_path / "a" / "b", [], [])
    write_run(tmp_path / "a" / "c" / "too_deep", [], [])
    assert find_runs([tmp_path]) == ([tmp_path / "a" / "b"], [])


def test_a_folder_with_a_config_hides_no_run_below(tmp_path: Path):
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
    tmp_path: Path, name: str, content: str | None, golden: Any, keys_of: Any
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


def test_a_folder_that_cannot_be_read_is_a_line_and_the_others_are_shown(tmp_path: Path):
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


def test_a_torn_last_line_is_no_damage(tmp_path: Path):
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
