"""Whole runs in this process on a data set of three classes: records, rows, pictures, and failures of clients."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.errors import ClientError, ClusterError, ConfigError, RunExistsError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.exchange.messages import Broadcast, bytes_by_kind
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.methods.local import Local
from fedvtc.learning.metrics import CLIENT_METRICS, MEASURED
from fedvtc.learning.population import Population
from fedvtc.learning.seeding import choose_participants
from fedvtc.learning.server import Server
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.contents import read_server
from fedvtc.storage.checkpoints.shard_file import ShardFile
from fedvtc.storage.checkpoints.trees import read_tree, write_tree
from fedvtc.storage.records import count_recorded
from fedvtc.storage.run_folder import RunFolder

NUM_CLIENTS, ROUNDS = 4, 5
SETTINGS = (
    "placement.pool=inline",
    f"run.rounds={ROUNDS}",
    "run.participation=0.5",
    "data.name=npz",
    "partition.alpha=1",
    f"population.num_clients={NUM_CLIENTS}",
    "population.backbones=[{name: cnn_2x8, share: 0.5}, {name: resnet8, share: 0.5}]",
    "population.feature_size=6",
    "method.name=fedvtc",
    "method.generator.epochs=1",
    "method.generator.width=4",
    "method.finetune.epochs=1",
    "method.finetune.images_per_class=4",
    "evaluate.every=2",
    "evaluate.samples_every=2",
    "evaluate.samples_per_class=3",
)


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("federation")


@pytest.fixture(scope="module")
def config_of(folder):
    def make(*overrides):
        other_method = any(word.startswith("method.name=") for word in overrides)
        settings = [word for word in SETTINGS if not (other_method and word.startswith("method."))]
        words = [*settings, f"run.output_dir={folder}", f"data.path={folder}/tiny.npz", *overrides]
        return load([], words, methods=config_classes())

    return make


@pytest.fixture(scope="module")
def run(config_of):
    """Runs a federation; returns its run folder."""

    def make(name, *overrides):
        return run_federation(config_of(f"run.name={name}", *overrides), plain=True).folder

    return make


@pytest.fixture(scope="module")
def finished(run):
    return run("finished")


def records_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def rows_of(path):
    with (path / "clients.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def results_of(path):
    """The records without times, memory and placement."""
    return [
        {key: value for key, value in record.items() if not key.startswith(MEASURED)} for record in records_of(path)
    ]


def test_the_folder_of_a_finished_run(finished, config_of):
    files = sorted(path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file())
    for name in ("clients.csv", "config.yaml", "metrics.jsonl", "partition.npz", "partition.png", "run.json"):
        assert name in files
    assert [name for name in files if name.startswith("samples/")] == [
        "samples/round_000002.png",
        "samples/round_000004.png",
        "samples/round_000005.png",
    ]
    described = json.loads((finished / "run.json").read_text())
    assert (described["name"], described["status"]) == ("finished", "finished")
    assert load([finished / "config.yaml"], [], methods=config_classes()) == config_of("run.name=finished")


def test_pictures_are_pictures(finished):
    for path in [finished / "partition.png", *sorted((finished / "samples").iterdir())]:
        with Image.open(path) as picture:
            assert min(picture.size) > 20
            assert np.asarray(picture.convert("L")).std() > 2


def test_each_round_has_one_record_and_the_end_has_one(finished):
    records = records_of(finished)
    assert [(record["round"], record["phase"]) for record in records] == [
        *((round, "round") for round in range(1, ROUNDS + 1)),
        (ROUNDS, "final"),
    ]
    # Every second round, the last round, and after fine-tuning.
    assert ["test/accuracy/mean" in record for record in records] == [False, True, False, True, True, True]
    assert [record["clients/participating"] for record in records] == [2, 2, 2, 2, 2, NUM_CLIENTS]


def test_every_key_of_a_record_and_every_column_is_documented(finished):
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    documented = {*re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE), "round", "phase"}
    keys = {re.sub(r"^(bytes/(up|down))/.*", r"\1/<kind>", key) for record in records_of(finished) for key in record}
    keys = {re.sub(r"^(cpu|flops)/(?!client$|server$).*", r"\1/<phase>", key) for key in keys}
    keys = {re.sub(r"^memory/(?!evaluate$|\w*peak_bytes$).*", "memory/<phase>", key) for key in keys}
    assert keys <= documented
    assert {"loss/finetune", "time/generator", "bytes/up/<kind>", "test/accuracy/mean"} <= keys
    assert {"cpu/<phase>", "cpu/server", "flops/<phase>", "memory/coordinator_peak_bytes", "memory/evaluate"} <= keys
    columns = rows_of(finished)[0].keys()
    assert columns <= {*documented, "client", "backbone", "num_images", "num_classes"}


def test_rows_of_clients_agree_with_the_records(finished, config_of):
    population = Population.of(config_of())
    rows, evaluated = rows_of(finished), [record for record in records_of(finished) if "test/accuracy/mean" in record]
    assert len(rows) == NUM_CLIENTS * len(evaluated)
    for record in evaluated:
        own = [row for row in rows if (row["round"], row["phase"]) == (str(record["round"]), record["phase"])]
        assert [int(row["client"]) for row in own] == list(range(NUM_CLIENTS))
        assert [row["backbone"] for row in own] == [spec.backbone for spec in population.specs]
        assert [int(row["num_images"]) for row in own] == [len(spec.indices_N) for spec in population.specs]
        assert [int(row["num_classes"]) for row in own] == (population.class_counts_KC > 0).sum(axis=1).tolist()
        for metric in CLIENT_METRICS:
            values = [float(row[metric]) for row in own if row[metric]]
            assert record.get(f"test/{metric}/mean") == (pytest.approx(np.mean(values)) if values else None)
        assert record["test/accuracy/min"] == min(float(row["accuracy"]) for row in own)


def test_a_sample_in_the_rounds_changes_nothing_but_the_evaluated_clients(finished, run):
    sampled = run("sampled", "evaluate.clients=2")
    rows, all_rows = rows_of(sampled), rows_of(finished)
    in_rounds = {int(row["client"]) for row in rows if row["phase"] == "round"}
    assert len(in_rounds) == 2
    assert rows == [row for row in all_rows if row["phase"] == "final" or int(row["client"]) in in_rounds]
    evaluated = [record for record in records_of(sampled) if "test/clients" in record]
    assert [(record["round"], record["phase"], record["test/clients"]) for record in evaluated] == [
        (2, "round", 2),
        (4, "round", 2),
        (5, "round", 2),
        (5, "final", 4),
    ]
    means = [np.mean([float(row["accuracy"]) for row in rows[i : i + 2]]) for i in (0, 2, 4)]
    assert [record["test/accuracy/mean"] for record in evaluated[:3]] == pytest.approx(means)
    # Without a number of evaluated clients, the rows of a round would count as torn.
    assert count_recorded(sampled, NUM_CLIENTS) == ROUNDS
    with np.load(sampled / "confusion.npz") as kept, np.load(finished / "confusion.npz") as all_kept:
        assert list(kept) == ["final"]
        assert kept["final"].tolist() == all_kept["final"].tolist()


def test_confusion_matrices_agree_with_the_rows_of_clients(finished, config_of):
    rows = rows_of(finished)
    with np.load(finished / "confusion.npz") as arrays:
        kept = dict(arrays)
    evaluated = dict.fromkeys("final" if row["phase"] == "final" else f"round_{int(row['round']):06d}" for row in rows)
    ranked = {name: counts_KCC for name, counts_KCC in kept.items() if "/" not in name}
    assert list(ranked) == list(evaluated)
    assert {name.partition("/")[2] for name in kept} == {""}
    matrices = [counts_CC for counts_KCC in ranked.values() for counts_CC in counts_KCC]
    for row, counts_CC in zip(rows, matrices, strict=True):
        assert counts_CC.sum(axis=1).tolist() == [5, 5, 5]
        assert float(row["accuracy"]) == counts_CC.trace() / 15


def test_a_saved_partition_gives_the_same_run_again(finished, config_of, run):
    parts = [spec.indices_N for spec in Population.of(config_of()).specs]
    with np.load(finished / "partition.npz") as saved:
        offsets = saved["offsets"]
        for client, part in enumerate(parts):
            np.testing.assert_array_equal(saved["indices"][offsets[client] : offsets[client + 1]], part)
        np.testing.assert_array_equal(saved["labels"], np.arange(36) % 3)
    again = run("again", "partition.kind=file", f"partition.file={finished}/partition.npz")
    assert results_of(again) == results_of(finished)


def test_runs_of_one_seed_are_equal_and_of_another_differ(finished, run):
    assert results_of(run("same")) == results_of(finished)
    assert rows_of(finished.parent / "same") == rows_of(finished)
    other = results_of(run("other", "run.seed=1"))
    assert all(theirs != ours for theirs, ours in zip(other, results_of(finished), strict=True))


def test_bytes_are_payload_bytes_times_participants(config_of, run):
    words = ["run.participation=1", "run.rounds=2"]
    config = config_of(*words)
    population = Population.of(config)
    first, second, final = records_of(run("bytes", *words))
    with InlinePool(config, population.dataset, population.specs) as pool:
        method = build(config.method, Task.of(config, population.dataset))
        state, broadcast = method.start()
        uploads = list(pool.map(ClientHost.run_round, range(NUM_CLIENTS), broadcast))
        _, broadcast = method.server_round(state, uploads, Server(0, 1))
    sent = [bytes_by_kind(upload.payload) for upload in uploads]
    assert traffic(first, "up") == {kind: sum(kinds[kind] for kinds in sent) for kind in sent[0]}
    assert traffic(first, "down") == {}
    received = {kind: size * NUM_CLIENTS for kind, size in bytes_by_kind(broadcast.payload).items()}
    assert traffic(second, "down") == received
    assert set(received) == {"prototypes", "covariance", "generator"}
    # Fine-tuning receives the last broadcast and uploads nothing.
    assert (traffic(final, "down"), traffic(final, "up")) == (received, {})


def traffic(record, way):
    return {key.split("/")[2]: value for key, value in record.items() if key.startswith(f"bytes/{way}/")}


def test_a_method_without_a_last_step_ends_with_its_last_evaluation(run):
    path = run("local", "method.name=local", "run.rounds=3")
    *_, last, final = records_of(path)
    assert final == {"round": 3, "phase": "final"} | {k: v for k, v in last.items() if k.startswith("test/")}
    assert not traffic(last, "up")
    assert not traffic(last, "down")
    assert not (path / "samples").exists()


def test_a_client_whose_upload_the_server_does_not_read_takes_part(run, monkeypatch):
    expected = run("local-read", "method.name=local", "run.rounds=1")
    monkeypatch.setattr(Local, "server_round", lambda self, state, uploads, server: (state, Broadcast(server.round)))
    assert results_of(run("local-unread", "method.name=local", "run.rounds=1")) == results_of(expected)


def test_a_method_without_a_last_step_evaluates_everybody_after_samples(run):
    path, whole = (run(f"local-{clients}", "method.name=local", "run.rounds=1", f"evaluate.clients={clients}")
                   for clients in (1, 4))  # fmt: skip
    last, final = records_of(path)
    assert (last["test/clients"], final["test/clients"]) == (1, 4)
    everybody = [row for row in rows_of(path) if row["phase"] == "final"]
    assert everybody == [{**row, "phase": "final"} for row in rows_of(whole) if row["phase"] == "round"]
    assert final["test/accuracy/mean"] == records_of(whole)[0]["test/accuracy/mean"]


def test_a_run_that_fails_names_the_client(run, folder):
    with pytest.raises(ClientError) as error:
        run("failed", "training.epochs=3", "training.optimizer.name=sgd", "training.optimizer.lr=1e30")
    assert (error.value.round, error.value.phase, error.value.reason) == (1, "train", "loss is nan")
    assert json.loads((folder / "failed/run.json").read_text())["status"] == "failed"
    assert records_of(folder / "failed") == []


@pytest.fixture
def fault(monkeypatch):
    """Makes the training of one client in one round fail, so many times, once it has changed the client."""

    def arrange(client, round, times=1):
        train, left = FederatedClient.train, [times]

        def failing(self, phase="train"):
            train(self, phase)
            if (self.id, self.round) == (client, round) and left[0] > 0:
                left[0] -= 1
                raise ClientError(client, round, phase, "loss is nan")

        monkeypatch.setattr(FederatedClient, "train", failing)

    return arrange


FEDPROTO = ("method.name=fedproto", "run.participation=1", "run.rounds=3", "checkpoint.keep=9")


def without_incidents(record):
    return {key: value for key, value in record.items() if not key.startswith("incidents")}


def saved(path, round):
    """The server's state after a round, and the clients' weights, from the run's own checkpoint."""
    store = CheckpointStore(path / "checkpoints")
    manifest = next(found for found in store.manifests(pytest.fail) if (found.phase, found.round) == ("round", round))
    weights = []
    for client in sorted(manifest.clients):
        shard = read_tree(store.read(manifest, f"client_{client:04d}.pt"))
        write_tree(shard["classifier"], file := ShardFile("classifier", io.BytesIO()))
        weights.append(file.end().sha256)
    return read_server(store, manifest)[0], weights


def test_a_run_that_a_client_failed_keeps_its_rounds_and_prints_the_resume_command(run, folder, fault, capsys, golden):
    fault(2, 3)
    with pytest.raises(ClientError) as error:
        run("ended", *FEDPROTO)
    assert (error.value.client, error.value.round, error.value.phase) == (2, 3, "train")
    golden(error.value)
    path = folder / "ended"
    assert json.loads((path / "run.json").read_text())["status"] == "failed"
    assert [record["round"] for record in records_of(path)] == [1, 2]
    assert CheckpointStore(path / "checkpoints").newest_whole(pytest.fail).round == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f": fedvtc resume {path}")
    golden(last, {str(folder): "OUTPUTS"})
    resume_federation(path, plain=True)
    assert results_of(path) == results_of(run("not-ended", *FEDPROTO))


def test_a_skipped_client_stays_out_of_the_round(run, config_of, fault, capsys):
    fault(1, 2)
    path = run("skipped", *FEDPROTO, "runtime.on_client_error=skip")
    line = "client 1, round 2, train: loss is nan; left out of this round"
    first, second, third, final = records_of(path)
    assert [record["clients/participating"] for record in (first, second, third)] == [4, 3, 4]
    assert (second["incidents/clients_skipped"], second["incidents"]) == (1, [line])
    assert all(record == without_incidents(record) for record in (first, third, final))
    assert "test/accuracy/mean" in second
    printed = capsys.readouterr().out.splitlines()
    assert line in printed
    assert "incidents: clients skipped 1" in printed
    assert [row["client"] for row in rows_of(path) if row["round"] == "2"] == ["0", "1", "2", "3"]

    config = config_of(*FEDPROTO)
    population = Population.of(config)
    with InlinePool(config, population.dataset, population.specs) as pool:
        method = build(config.method, Task.of(config, population.dataset))
        state, broadcast = method.start()
        for participants in ([0, 1, 2, 3], [0, 2, 3]):
            uploads = pool.map(ClientHost.run_round, participants, broadcast)
            state, broadcast = method.server_round(state, uploads, Server(0, broadcast.round + 1))
    found, weights = saved(path, 2)
    assert found["prototypes"].keys() == state["prototypes"].keys()
    for name, array in state["prototypes"].items():
        np.testing.assert_array_equal(found["prototypes"][name], array)
    before = saved(path, 1)[1]
    assert [now == then for now, then in zip(weights, before, strict=True)] == [False, True, False, False]


def test_a_retried_step_does_not_change_the_results(run, fault, finished, capsys):
    fault(choose_participants(0, round=3, num_clients=NUM_CLIENTS, participation=0.5)[0], 3, times=2)
    path = run("retried", "runtime.on_client_error=retry", "runtime.retries=2")
    third = records_of(path)[2]
    assert (third["incidents/steps_retried"], len(third["incidents"])) == (2, 2)
    assert capsys.readouterr().out.count("round 3, train: loss is nan; trying again\n") == 2
    assert [without_incidents(record) for record in results_of(path)] == results_of(finished)
    assert (path / "clients.csv").read_bytes() == (finished / "clients.csv").read_bytes()
    assert saved(path, ROUNDS)[1] == saved(finished, ROUNDS)[1]


def test_a_step_that_fails_every_retry_ends_the_run(run, folder, fault, capsys, golden):
    fault(0, 1, times=3)
    with pytest.raises(ClientError) as error:
        run("no-success", *FEDPROTO, "runtime.on_client_error=retry", "runtime.retries=2")
    assert (error.value.client, error.value.round, error.value.phase) == (0, 1, "train")
    printed = capsys.readouterr().out
    assert printed.count("trying again\n") == 2
    golden(printed.splitlines()[-1], {str(folder): "OUTPUTS"})


@pytest.mark.parametrize(("least", "code"), [(3, 0), (4, 1)])
def test_a_round_of_too_few_clients_ends_the_run(folder, fault, capsys, golden, least, code):
    fault(1, 2)
    name = f"at-least-{least}"
    words = [word for word in SETTINGS if not word.startswith(("method.", "run."))]
    words += [f"data.path={folder}/tiny.npz", f"run.output_dir={folder}", f"run.name={name}", *FEDPROTO]
    more = ["runtime.on_client_error=skip", f"runtime.min_clients={least}", "--plain"]
    assert main(["run", *words, *more]) == code
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == code
    if code:
        golden(errors)
    assert json.loads((folder / name / "run.json").read_text())["status"] == ("failed" if code else "finished")
    assert len(records_of(folder / name)) == (1 if code else 4)


def test_a_user_error_before_the_first_round_leaves_no_folder(config_of, folder, monkeypatch, golden):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = config_of("run.name=corrected", "placement.pool=ray", "cluster.address=127.0.0.1:1")
    with pytest.raises(ClusterError):
        run_federation(config)
    assert not (folder / "corrected").exists()
    run_federation(replace(config, placement=replace(config.placement, pool="inline")))
    with pytest.raises(RunExistsError) as error:
        run_federation(config)
    golden(error.value, {str(folder): "OUTPUTS"})


def test_a_job_with_a_relative_output_folder_is_refused(config_of, monkeypatch, tmp_path, keys_of):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    with pytest.raises(ConfigError) as refused:
        run_federation(config_of("run.output_dir=outputs"))
    assert keys_of(refused.value) == ["run.output_dir"]
    assert not list(tmp_path.iterdir())


def test_unnamed_runs_of_the_same_second_have_different_folders(config_of, folder, monkeypatch):
    monkeypatch.setattr("fedvtc.federation.launch.default_name", lambda _: "made-20261123-101112")
    config = config_of("run.name=null", "run.rounds=1")
    names = [run_federation(config).folder.name for _ in range(3)]
    assert names == ["made-20261123-101112", "made-20261123-101112-2", "made-20261123-101112-3"]
    assert [RunFolder.open(folder / name).name for name in names] == names
