"""W&B gets the numbers of metrics.jsonl: every number once, in one W&B run over all attempts."""

import csv
import json
import os
import shutil
import time
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedvtc.config import load
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import RunInfo
from fedvtc.tracking.wandb.identity import keep_id, kept_id
from fedvtc.tracking.wandb.local_log import HEADER_BYTES, logged_values, records, rows
from fedvtc.tracking.wandb.session import close_service, gone_errors
from fedvtc.tracking.wandb.tracker import HEADLINES, WandbTracker

SETTINGS = (
    "placement.pool=inline",
    "run.name=tracked",
    "run.rounds=3",
    "data.name=npz",
    "partition.alpha=100",
    "population.num_clients=3",
    "population.backbones=[{name: cnn_2x8, share: 0.67}, {name: cnn_2x16, share: 0.33}]",
    "population.feature_size=6",
    "method.name=fedvtc",
    "method.generator.epochs=1",
    "method.generator.width=4",
    "method.finetune.epochs=1",
    "method.finetune.images_per_class=4",
    "evaluate.every=2",
    "evaluate.samples_every=2",
    "evaluate.samples_per_class=2",
    "tracking.trackers=[wandb]",
    "tracking.clients_every=2",
    "tracking.wandb.group=mine",
    "tracking.wandb.tags=[first, fedvtc]",
    "tracking.wandb.notes=a *note*",
    "tracking.wandb.upload_checkpoints=true",
)


def end_of_program():
    """Waits as the end of a program does, because W&B's service closes its files a moment after a run has finished."""
    import wandb

    wandb.teardown()


def wandb_records(folder):
    """Yields the records of the files of all attempts, in order."""
    for file in sorted(folder.glob("wandb/*run-*-*/*.wandb")):
        yield from records(file)


def history(folder):
    """Returns the rows of all attempts as values by name."""
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(folder)
        if record.HasField("history")
    ]


def summary(folder):
    found = {}
    for record in wandb_records(folder):
        for item in record.summary.update:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(values):
    return {name: value for name, value in values.items() if isinstance(value, int | float) and name[0] != "_"}


def assert_same(folder, rounds, records):
    """Rows of rounds equal the records to the last bit, besides the numbers derived from them."""
    total_bytes, total_mb = 0, []
    for row, record in zip(rounds, records, strict=True):
        expected = numbers(record)
        total_bytes += sum(value for name, value in expected.items() if name.startswith(("bytes/up/", "bytes/down/")))
        total_mb.append(total_bytes / 1e6)
        doubles = {f"mb/{name}": record[name] for name in HEADLINES if name in record}
        found = {name: value for name, value in numbers(row).items() if "." not in name and name[:9] != "backbone/"}
        assert found == expected | doubles | {"bytes/total_mb": total_mb[-1]}
    return total_mb


@pytest.fixture(scope="module")
def tracked(tiny_folder):
    """The folder of a run of three rounds, then resumed to five; records, rows and summary before the resume."""
    folder = tiny_folder("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_TAGS", "theirs, first")
        # The folder below which W&B copies files by default.
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        overrides = [*SETTINGS, f"data.path={folder}/tiny.npz", f"run.output_dir={folder}/outputs"]
        path = run_federation(load([], overrides, methods=config_classes()), plain=True).folder
        end_of_program()
        before = metrics(path), history(path), summary(path)
        resume_federation(path, ["run.rounds=5"], plain=True)
        end_of_program()
    return path, before


def test_every_number_of_every_round_is_logged_once(tracked):
    path, (records, rows_before, _) = tracked
    rounds = [row for row in rows_before if "round" in row]
    assert [row["round"] for row in rounds] == [1, 2, 3]
    assert_same(path, rounds, records[:-1])


def test_the_numbers_of_the_final_record_are_in_the_summary_and_in_no_chart(tracked):
    _, (records, rows_before, summary_before) = tracked
    last, final = rows_before[-1], records[-1]
    assert final["phase"] == "final"
    # Names with a point are parts of a table or a histogram.
    assert {name: value for name, value in numbers(last).items() if "." not in name} == {"final/round": 3}
    assert summary_before["bytes/total_mb"] > max(row.get("bytes/total_mb", 0) for row in rows_before[:-1])
    expected = {name: value for name, value in numbers(final).items() if name != "round"}
    assert {name: summary_before[name] for name in expected} == expected
    best = max(record["test/accuracy/mean"] for record in records if "test/accuracy/mean" in record)
    assert summary_before["max/test/accuracy/mean"] == best


def test_a_resumed_run_continues_the_curve(tracked):
    path, (before, _, _) = tracked
    all_rows = history(path)
    rounds = [row for row in all_rows if "round" in row]
    assert [row["round"] for row in rounds] == [1, 2, 3, 4, 5]
    # The first records are unchanged; the final record was cut off.
    records = metrics(path)
    assert records[:3] == before[:3]
    total_mb = assert_same(path, rounds, records[:-1])
    assert total_mb == sorted(total_mb)
    assert [row["final/round"] for row in all_rows if "final/round" in row] == [3, 5]
    assert {record.run.run_id for record in wandb_records(path) if record.HasField("run")} == {
        json.loads((path / "run.json").read_text())["id"]
    }


def test_the_wandb_run_has_names_tags_and_config(tracked):
    path, _ = tracked
    run = next(record.run for record in wandb_records(path) if record.HasField("run"))
    assert (run.project, run.run_group, run.job_type) == ("fedvtc", "mine", "federation")
    assert run.display_name == "tracked"
    assert list(run.tags) == ["fedvtc", "npz", "dirichlet", "first", "theirs"]
    assert run.notes == "a *note*"
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["method"]["generator"]["width"] == 4
    assert [backbone["name"] for backbone in config["population"]["backbones"]] == ["cnn_2x8", "cnn_2x16"]
    assert config["backbone_mix"] == "cnn_2x8 x2, cnn_2x16 x1"
    described = json.loads((path / "run.json").read_text())
    assert config["environment"]["versions"] == described["versions"]
    assert config["environment"]["hardware"] == described["hardware"]


def test_the_template_of_a_workspace_names_what_a_run_logs(tracked):
    path, _ = tracked
    template = json.loads((Path(__file__).parents[3] / "docs/wandb/workspace.json").read_text())
    panels = [panel for section in template["sections"] for panel in section["panels"]]
    run = next(record.run for record in wandb_records(path) if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    # Each client of the run has every class.
    curves = {name.partition("._type")[0] for row in history(path) for name in row} | {"test/accuracy/missing/mean"}
    named = {"curve": set(), "config": set(), "summary": set()}
    for panel in panels:
        if panel["kind"] == "LinePlot":
            named["curve"] |= {panel["x"], *panel["y"]}
        named["curve"] |= {*panel.get("media_keys", ()), *([panel["table_name"]] if "table_name" in panel else ())}
        named["summary"] |= set(panel.get("metrics", ()))
        for metric in (*panel.get("columns", ()), panel.get("x"), panel.get("y")):
            for place, name in metric.items() if isinstance(metric, dict) else ():
                named[place].add(name)
    assert named["curve"] - curves == set()
    assert named["summary"] - summary(path).keys() == set()
    assert all(reduce(lambda part, key: part[key], name.split("."), config) for name in named["config"])


def test_the_mean_accuracy_of_each_backbone_is_a_curve(tracked):
    path, _ = tracked
    with (path / "clients.csv").open(newline="") as file:
        clients = [row for row in csv.DictReader(file) if row["phase"] == "round"]
    for backbone in ("cnn_2x8", "cnn_2x16"):
        expected: dict[int, list[float]] = {}
        for row in clients:
            if row["backbone"] == backbone:
                expected.setdefault(int(row["round"]), []).append(float(row["accuracy"]))
        name = f"backbone/{backbone}/accuracy"
        found = {row["round"]: row[name] for row in history(path) if name in row}
        assert found == {round: pytest.approx(np.mean(values)) for round, values in expected.items()}


def test_the_lines_of_the_console_are_in_the_logs(tracked):
    path, _ = tracked
    lines = [record.output_logger.line for record in wandb_records(path) if record.HasField("output_logger")]
    starts = [line.split()[0:2] for line in lines]
    assert [words[1] for words in starts if words[0] == "round"] == ["1/3", "2/3", "3/3", "4/5", "5/5"]
    assert [words[0] for words in starts].count("final") == 2


def test_axes_are_the_round_and_the_megabytes(tracked):
    path, _ = tracked
    axes = {
        record.metric.glob_name: record.metric.step_metric
        for record in wandb_records(path)
        if record.HasField("metric") and record.metric.glob_name
    }
    assert axes["mb/*"] == "bytes/total_mb"
    assert axes["final/*"] == "final/round"
    assert {axes[f"{group}/*"] for group in ("test", "loss", "time", "bytes", "memory", "clients")} == {"round"}


def test_clients_and_pictures_are_shown_when_they_are_due(tracked):
    path, _ = tracked
    shown = {
        name: [(row.get("round"), row.get("final/round")) for row in history(path) if f"{name}._type" in row]
        for name in ("clients/table", "clients/accuracy", "final/clients/table", "final/clients/accuracy", "samples")
    }
    assert shown["clients/table"] == shown["clients/accuracy"] == [(2, None), (4, None)]
    # Round 3 was the last one before the resume. Each row has the axis of its names.
    assert shown["final/clients/table"] == shown["final/clients/accuracy"] == [(None, 3), (None, 5)]
    assert shown["samples"] == [(2, None), (None, 3), (4, None), (None, 5)]
    assert [row["round"] for row in history(path) if "partition._type" in row] == [1]
    tables = sorted(path.glob("wandb/offline-run-*/files/media/table/**/clients/*.json"))
    assert len(tables) == 4
    accuracies = [
        [dict(zip(table["columns"], row, strict=True))["accuracy"] for row in table["data"]]
        for table in map(json.loads, (table.read_text() for table in tables))
    ]
    means = {round(record["test/accuracy/mean"], 9) for record in metrics(path) if "test/accuracy/mean" in record}
    assert means & {round(float(np.mean(values)), 9) for values in accuracies}


def test_data_and_partition_are_inputs_and_the_final_states_outputs_on_request(tracked):
    path, _ = tracked
    found = {}
    for record in wandb_records(path):
        if record.HasField("artifact"):
            names = {content.path for content in record.artifact.manifest.contents}
            # The last attempt of the two wins.
            found[record.artifact.type] = record.artifact, json.loads(record.artifact.metadata or "{}"), names
    described = json.loads((path / "run.json").read_text())
    # Pictures and tables in the rows have artifacts of W&B's own.
    assert {kind for kind, (artifact, *_) in found.items() if artifact.use_after_commit} == {"dataset", "partition"}
    data, metadata, files = found["dataset"]
    assert (data.name, metadata["hash"], files) == (
        f"npz-{described['data']['hash'][:12]}",
        described["data"]["hash"],
        set(),
    )
    _, metadata, files = found["partition"]
    assert (metadata["alpha"], np.sum(metadata["class_counts"]), files) == (100.0, 36, {"partition.npz"})
    model, metadata, files = found["model"]
    assert (model.name, metadata["data_hash"]) == (f"clients-{described['id']}", described["data"]["hash"])
    assert metadata["metrics"]["test/accuracy/mean"] == metrics(path)[-1]["test/accuracy/mean"]
    assert files == {"manifest.json", *(f"client_000{client}.pt" for client in range(3))}
    assert "server.pt" in found["server-state"][2]


def test_the_files_of_all_artifacts_are_copied_into_the_folder_of_their_attempt(tracked):
    """`wandb sync` finds the files of the first attempt too, whose final checkpoint the second attempt replaced."""
    path, _ = tracked
    rounds = []
    for folder in sorted(path.glob("wandb/offline-run-*")):
        (file,) = folder.glob("*.wandb")
        artifacts = [record.artifact for record in records(file) if record.HasField("artifact")]
        contents = [content for artifact in artifacts for content in artifact.manifest.contents]
        copies = {content.path: Path(content.local_path) for content in contents}
        assert {"clients/table.table.json", "partition.npz", "client_0000.pt", "server.pt"} <= {
            name.removeprefix("final/") for name in copies
        }
        for content in contents:
            copy = Path(content.local_path)
            assert copy.is_relative_to(folder)
            assert copy.stat().st_size == content.size
        rounds.append(json.loads(copies["manifest.json"].read_text())["round"])
    assert rounds == [3, 5]
    assert list((path.parents[1] / "data").rglob("*")) == []


def test_files_of_wandb_hold_no_command_line(tracked):
    path, _ = tracked
    assert list(path.glob("wandb/*/files/wandb-metadata.json")) == []


@pytest.fixture
def run(tmp_path):
    config = load([], ["tracking.wandb.timeout_s=20"], methods=config_classes())
    counts_KC = np.ones((2, 2), dtype=np.int64)
    return RunInfo("abcd1234", "by-hand", tmp_path, config, {"run": {"rounds": 2}}, counts_KC, ["cnn", "vit"])


def record(round, **values):
    return {"round": round, "phase": "round", "loss/train": round / 2, **values}


@pytest.mark.parametrize(("samples", "best"), [(False, 0.75), (True, 0.5)])
def test_the_best_value_is_that_of_the_final_record_unless_rounds_have_samples(run, monkeypatch, samples, best):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WandbTracker(["a", "b"], lambda line: None)
    tracker.start(run)
    for round, accuracy, phase in ((1, 0.5, "round"), (2, 0.25, "round"), (2, 0.75, "final")):
        evaluated = {"test/accuracy/mean": accuracy} | ({"test/clients": 2} if samples else {})
        tracker.log(record(round, **evaluated) | {"phase": phase}, [])
    tracker.finish("finished")
    end_of_program()
    found = summary(run.folder)
    assert (found["max/test/accuracy/mean"], found["test/accuracy/mean"]) == (best, 0.75)


def with_tracking(run, **keys):
    """The facts of a run whose section `tracking.wandb` has other keys; `clients_every` is one of `tracking`."""
    tracking = replace(run.config.tracking, clients_every=keys.pop("clients_every", 10))
    tracking = replace(tracking, wandb=replace(tracking.wandb, **keys))
    return replace(run, config=replace(run.config, tracking=tracking))


def test_rounds_that_wandb_lost_are_logged_by_the_next_attempt(run, monkeypatch):
    """W&B has round 1 of the first attempt, whose row spans several blocks of the file, but not round 2."""
    run = with_tracking(run, clients_every=1, alerts=True)
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = []
    first = WandbTracker(["a", "b"], reported.append)
    first.start(run)
    first.log(record(1, incidents=["x" * 100_000]), [])
    first.finish("failed")
    end_of_program()
    assert len(reported) == 1
    assert reported[0].startswith(f"W&B: upload the run with: wandb sync {run.folder}/wandb/offline-run-")
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record(round)) + "\n" for round in (1, 2)))
    lines = ["round,phase,client,accuracy,f1", "1,round,0,0.25,1", "2,round,0,0.5,1", "2,round,1,0.25,"]
    (run.folder / "clients.csv").write_text("".join(f"{line}\n" for line in lines))
    (run.folder / "samples").mkdir()
    Image.new("RGB", (4, 4)).save(run.folder / "samples/round_000002.png")

    second = WandbTracker(["a", "b"], reported.append)
    second.start(replace(run, resumed_round=2))
    second.log(record(3, **{"bad": float("nan"), "absent": None}), [])
    second.finish("finished")
    end_of_program()
    assert [row["round"] for row in history(run.folder)] == [1, 2, 3]
    assert not {"bad", "absent"} & set(history(run.folder)[-1])
    assert reported[1].count("offline-run-") == 2
    assert {file.stem for file in run.folder.glob("wandb/offline-run-*/*.wandb")} == {f"run-{run.id}"}
    # Table and pictures of the lost round are made again.
    (lost,) = (row for row in history(run.folder) if row["round"] == 2)
    assert {"samples._type", "clients/table._type"} <= lost.keys()
    (file,) = run.folder.glob("wandb/offline-run-*/files/media/table/clients/*.table.json")
    assert json.loads(file.read_text())["data"] == [[2, "round", 0, 0.5, 1], [2, "round", 1, 0.25, None]]
    # A copy is another W&B run, with all rounds.
    (run.folder / "run.json").write_text(json.dumps({"id": run.id}))
    copy = shutil.copytree(run.folder, run.folder.parent / "copy")
    third = WandbTracker(["a", "b"], reported.append)
    third.start(replace(run, folder=copy, resumed_round=2))
    third.log(record(3), [])
    third.finish("finished")
    end_of_program()
    own = (copy / "wandb/id").read_text()
    assert own != run.id
    assert logged_values(copy / "wandb", own, "round") == [1, 2, 3]
    assert reported[2].count("offline-run-") == 1
    (alert,) = (record.alert for record in wandb_records(run.folder) if record.HasField("alert"))
    assert (alert.title, alert.level) == ("by-hand failed", "ERROR")


def test_a_copied_folder_gets_an_id_of_its_own_and_a_moved_folder_keeps_its_id(run, tmp_path):
    def place(name):
        return replace(run, folder=tmp_path / name)

    first = place("first")
    (first.folder / "wandb").mkdir(parents=True)
    (first.folder / "run.json").write_text(json.dumps({"id": run.id}))
    assert kept_id(first) == run.id
    keep_id(first, run.id)
    assert kept_id(first) == run.id

    shutil.copytree(first.folder, tmp_path / "copy")
    own = kept_id(place("copy"))
    assert own != run.id
    keep_id(place("copy"), own)
    assert kept_id(place("copy")) == own
    assert kept_id(first) == run.id

    first.folder.rename(tmp_path / "moved")
    assert kept_id(place("moved")) == run.id


def test_a_file_torn_within_a_record_is_read_up_to_this_record(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WandbTracker(["a", "b"], print)
    tracker.start(run)
    for round in (1, 2, 3):
        tracker.log(record(round, incidents=["x" * 40_000]), [])
    tracker.finish("failed")
    end_of_program()
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    counts = []
    for num_bytes in (*range(0, len(content), 10_007), len(content)):
        file.write_bytes(content[:num_bytes])
        counts.append(len(list(rows(file))))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 3)
    assert logged_values(run.folder / "wandb", run.id, "round") == [1, 2, 3]


def test_the_environment_wins_and_disabled_writes_nothing(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    reported = []
    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(run)
    tracker.log(record(1), [])
    tracker.finish("finished")
    assert reported == []
    assert not (run.folder / "wandb").exists()

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(run)
    tracker.finish("finished")
    end_of_program()
    (project,) = {record.run.project for record in wandb_records(run.folder) if record.HasField("run")}
    assert project == "theirs"


@pytest.fixture
def end_service():
    """A function that ends W&B's service with SIGTERM, as a stopped job does, and returns its process."""
    import wandb

    ended = []

    def end():
        # Python warns unless the one object of this process is waited for.
        process = wandb.setup()._connection._proc._process
        process.terminate()
        ended.append(process)
        return process

    yield end
    for process in ended:
        process.wait()


def evaluated(round, phase="round", **values):
    """Arguments of `Tracker.log`: a record with one more megabyte, and two clients."""
    accuracies = (round / 10, round / 20)
    clients = [{"client": client, "accuracy": accuracy} for client, accuracy in enumerate(accuracies)]
    numbers = {"test/accuracy/mean": float(np.mean(accuracies)), "bytes/up/generator": 1_000_000}
    return record(round, **numbers, **values) | {"phase": phase}, clients


@pytest.mark.parametrize("last_before", [3, 5])
@pytest.mark.parametrize(("num_letters", "num_written"), [(0, 0), (40_000, 2)])
def test_a_service_that_dies_loses_no_row(run, monkeypatch, end_service, last_before, num_letters, num_written):
    """The service has stored the first rounds, if these are long, or none; the run notices at a round or at the end."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = []
    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(with_tracking(run, clients_every=1))

    def log_rounds(*rounds):
        for round in rounds:
            tracker.show_samples(round, np.full((2, 1, 8, 8), round, dtype=np.uint8), [0, 1])
            tracker.log(*evaluated(round, incidents=["x" * num_letters] if num_letters else []))

    log_rounds(*range(1, last_before + 1))
    until_s = time.monotonic() + 60
    while len(logged_values(run.folder / "wandb", run.id, "round")) < num_written:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    end_service()
    log_rounds(*range(last_before + 1, 6))
    tracker.log(*evaluated(5, "final"))
    tracker.finish("finished")
    end_of_program()

    rows = history(run.folder)
    assert [row.get("round") for row in rows] == [1, 2, 3, 4, 5, None]
    assert [row.get("bytes/total_mb") for row in rows] == [1, 2, 3, 4, 5, None]
    assert ["samples._type" in row for row in rows] == [True] * 5 + [False]
    assert ["clients/table._type" in row for row in rows] == [True] * 5 + [False]
    assert (rows[-1]["final/round"], summary(run.folder)["bytes/total_mb"]) == (5, 6)
    assert "final/clients/table._type" in rows[-1]
    assert summary(run.folder)["max/test/accuracy/mean"] == pytest.approx(0.375)
    # The line names no empty folder, and there is no other line.
    folders = sorted(run.folder.glob("wandb/offline-run-*"))
    assert len(folders) == (2 if num_written else 1)
    assert reported == [f"W&B: upload the run with: wandb sync {' '.join(map(str, folders))}"]


def test_rows_that_are_no_longer_kept_are_read_from_the_run_folder(run, monkeypatch, end_service):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("fedvtc.tracking.wandb.tracker.KEPT_S", 0.0)
    tracker = WandbTracker(["a", "b"], print)
    tracker.start(run)
    records = [evaluated(round)[0] for round in (1, 2, 3)]
    for each in records:
        with (run.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(each) + "\n")
        tracker.log(each, [])
    end_service()
    tracker.finish("interrupted")
    end_of_program()
    assert [(row["round"], row["bytes/total_mb"]) for row in history(run.folder)] == [(1, 1), (2, 2), (3, 3)]


def test_a_service_that_dies_twice_is_not_started_again(run, monkeypatch, end_service):
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = []
    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(run)
    end_service().wait()
    tracker.log(*evaluated(1, incidents=["x" * 40_000]))
    end_service().wait()
    with pytest.raises(gone_errors()):
        tracker.log(*evaluated(2))
    with pytest.raises(gone_errors()):
        tracker.finish("finished")
    # W&B must have nothing left to do at the end of the program, which would raise.
    end_of_program()
    (folder,) = run.folder.glob("wandb/offline-run-*")
    assert reported == [
        "tracking.wandb: W&B did not upload all values in time.",
        f"W&B: upload the run with: wandb sync {folder}",
    ]


def test_the_folder_of_an_attempt_without_a_stored_record_is_removed(run, monkeypatch, end_service):
    monkeypatch.setenv("WANDB_MODE", "offline")
    written = WandbTracker(["a", "b"], print)
    written.start(run)
    written.log(record(1), [])
    written.finish("failed")
    end_of_program()
    (kept,) = run.folder.glob("wandb/offline-run-*")
    lost = WandbTracker(["a", "b"], print)
    lost.start(replace(run, resumed_round=0))
    lost.log(record(2), [])
    end_service().wait()
    close_service()
    (of_lost,) = set(run.folder.glob("wandb/offline-run-*")) - {kept}
    for file in of_lost.glob("run-*.wandb"):
        # The service may store some records before it ends; the header is always there.
        os.truncate(file, min(file.stat().st_size, HEADER_BYTES))

    reported = []
    last = WandbTracker(["a", "b"], reported.append)
    last.start(replace(run, resumed_round=0))
    last.log(record(2), [])
    last.finish("finished")
    end_of_program()
    folders = sorted(run.folder.glob("wandb/offline-run-*"))
    assert (len(folders), kept in folders) == (2, True)
    assert reported == [f"W&B: upload the run with: wandb sync {' '.join(map(str, folders))}"]
    assert [row["round"] for row in history(run.folder)] == [1, 2]


def test_the_id_that_a_wandb_sweep_chose_is_kept(run, monkeypatch):
    """The agent starts the run; a resume by hand continues the same W&B run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = []
    with monkeypatch.context() as agent:
        agent.setenv("WANDB_SWEEP_ID", "theirs00")
        agent.setenv("WANDB_RUN_ID", "chosen00")
        first = WandbTracker(["a", "b"], reported.append)
        first.start(run)
        first.log(record(1), [])
        first.finish("failed")
        end_of_program()
    (run.folder / "metrics.jsonl").write_text(json.dumps(record(1)) + "\n")

    second = WandbTracker(["a", "b"], reported.append)
    second.start(replace(run, resumed_round=1))
    second.log(record(2), [])
    second.finish("finished")
    end_of_program()
    ids = {record.run.run_id for record in wandb_records(run.folder) if record.HasField("run")}
    assert ids == {"chosen00"}
    assert [row["round"] for row in history(run.folder)] == [1, 2]
    assert reported[1].count("-chosen00") == 2


def test_a_tracker_that_was_given_up_reports_the_upload_command_only(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = []
    unbegun = WandbTracker(["a", "b"], reported.append)
    unbegun.give_up()
    assert reported == []

    tracker = WandbTracker(["a", "b"], reported.append)
    tracker.start(run)
    tracker.log(record(1), [])
    tracker.give_up()
    tracker.report("a later failure")
    (folder,) = run.folder.glob("wandb/offline-run-*")
    assert reported == [
        "tracking.wandb: W&B did not upload all values in time.",
        f"W&B: upload the run with: wandb sync {folder}",
    ]
