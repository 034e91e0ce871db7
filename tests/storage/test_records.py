import json

import numpy as np
import pytest

from fedvtc.storage import records
from fedvtc.storage.records import (
    client_columns,
    client_lines,
    clients_of,
    count_recorded,
    is_torn,
    plain,
    read_metrics,
    records_up_to,
)

HEADER = "round,phase,client\n"


def test_a_folder_without_files_has_no_records(tmp_path):
    metrics = read_metrics(tmp_path)
    assert (metrics.records, metrics.damaged_lines) == ([], [])
    assert (client_columns(tmp_path), list(client_lines(tmp_path))) == ([], [])


@pytest.mark.parametrize(
    "line",
    ["", "null", "[1]", "{", '{"round": "2", "phase": "round"}', '{"round": true, "phase": "round"}', '{"round": 2}',
     '{"phase": "round"}', '{"round": 2, "phase": "test"}', "\0\0\0", "\u00ff"],
)  # fmt: skip
def test_a_line_without_a_record_is_damaged_and_numbered(tmp_path, line):
    whole = '{"round": 1, "phase": "round"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(f"{whole}{line}\n{whole}".encode("latin-1"))
    metrics = read_metrics(tmp_path)
    assert metrics.records == [{"round": 1, "phase": "round"}] * 2
    assert metrics.damaged_lines == [2]


@pytest.mark.parametrize("row", ["", "1,round", "1,round,0,0", "x,round,0", "1,test,0", ",round,0", '"1,round,0'])
def test_a_line_without_a_row_is_damaged_and_numbered(tmp_path, row):
    (tmp_path / "clients.csv").write_text(f"{HEADER}1,round,0\n{row}\n1,final,1\n")
    lines = list(client_lines(tmp_path))
    assert [line.number for line in lines] == [2, 3, 4]
    assert [line.content for line in lines] == [b"1,round,0\n", f"{row}\n".encode(), b"1,final,1\n"]
    assert [line.values for line in lines] == [
        {"round": 1, "phase": "round", "client": "0"},
        None,
        {"round": 1, "phase": "final", "client": "1"},
    ]


@pytest.mark.parametrize("header", ["", "round,phase,client", "round,phase\n", "1,round,0\n"])
def test_a_missing_torn_or_wrong_header_names_no_columns(tmp_path, header):
    (tmp_path / "clients.csv").write_text(header)
    assert client_columns(tmp_path) == []


def test_rows_below_a_wrong_header_are_damaged(tmp_path):
    (tmp_path / "clients.csv").write_text("1,round,0\n2,round,0\n")
    assert [(line.number, line.values) for line in client_lines(tmp_path)] == [(2, None)]


def test_a_torn_last_line_is_neither_a_record_nor_damaged(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for torn in ('{"round": 2, "pha', '{"round": 2, "phase": "round"}'):
        file.write_text('{"round": 1, "phase": "round"}\n' + torn)
        assert read_metrics(tmp_path).records == [{"round": 1, "phase": "round"}]
        assert read_metrics(tmp_path).damaged_lines == []
        assert is_torn(file)
    for whole in ("", '{"round": 1, "phase": "round"}\n'):
        file.write_text(whole)
        assert not is_torn(file)


def test_records_up_to_a_round_leave_out_the_final_record(tmp_path):
    records = [{"round": round, "phase": "round"} for round in (1, 2, 3)] + [{"round": 2, "phase": "final"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert records_up_to(tmp_path, 2) == records[:2]
    assert records_up_to(tmp_path, 0) == []


def test_rows_of_several_rounds_are_read_in_one_pass(tmp_path, monkeypatch):
    rows = [f"{round},{phase},{client},0.5" for round, phase in ((1, "round"), (3, "round"), (3, "final"), (5, "round"))
            for client in (0, 1)]  # fmt: skip
    (tmp_path / "clients.csv").write_text("\n".join(["round,phase,client,accuracy", *rows, "damaged", ""]))
    passes = []
    monkeypatch.setattr(records, "client_lines", lambda folder: passes.append(folder) or client_lines(folder))
    first, second, third, last = clients_of(tmp_path, [1, 2, 3, 6])
    assert first == [{"round": 1, "phase": "round", "client": client, "accuracy": 0.5} for client in (0, 1)]
    assert (second, last) == ([], [])
    assert [(row["round"], row["phase"], row["client"]) for row in third] == [(3, "round", 0), (3, "round", 1)]
    assert len(passes) == 1


def test_rounds_count_up_to_the_first_missing_or_damaged_record(tmp_path):
    assert count_recorded(tmp_path, 2) == 0
    records = [{"round": round, "phase": "round"} for round in (1, 2, 3, 4)]
    records[1]["test/accuracy/mean"] = 0.5
    text = "".join(json.dumps(record) + "\n" for record in records)
    rows = f"{HEADER}1,final,0\n2,round,0\n2,round,1\n"
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "clients.csv").write_text(rows)
    assert count_recorded(tmp_path, 2) == 4
    (tmp_path / "metrics.jsonl").write_text(text[:-1])
    assert count_recorded(tmp_path, 2) == 3
    (tmp_path / "metrics.jsonl").write_text("".join([*text.splitlines(keepends=True)[:2], "{torn\n"]))
    assert count_recorded(tmp_path, 2) == 2
    for damaged in (rows[:-1], rows[: rows.index("2,round,1")], rows.replace("2,round,1", "2,round"), ""):
        (tmp_path / "clients.csv").write_text(damaged)
        assert count_recorded(tmp_path, 2) == 1


def test_plain_values_are_those_that_json_can_hold():
    value = {1: np.float32(0.5), "n": (np.int64(3), float("nan")), "x": {"y": [np.inf, "text", None, True]}}
    assert plain(value) == {"1": 0.5, "n": [3, None], "x": {"y": [None, "text", None, True]}}
    assert [type(number) for number in plain([np.float32(0.5), np.int64(3)])] == [float, int]
