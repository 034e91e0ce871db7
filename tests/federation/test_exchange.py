"""A method with all parts of the contract: a server that trains, groups, a closing exchange, parts to receive."""

import csv
import json
import sys

import numpy as np
import pytest

from fedvtc.config import load
from fedvtc.errors import TooFewClientsError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.metrics import MEASURED
from fedvtc.learning.population import Population
from fedvtc.learning.server import Server
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.contents import read_server
from fedvtc.storage.checkpoints.trees import read_tree

SOURCE = """
import torch
from torch import nn

from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods import Method
from fedvtc.learning.models.weights import load_optimizer, load_weights, optimizer_arrays, weights_of


class Everything(Method):
    def receive(self, client, broadcast):
        if "bias" in broadcast.payload:
            bias = torch.tensor(broadcast.payload["bias"]["bias"])
            load_weights(client.classifier.head, {**weights_of(client.classifier.head), "bias": bias.numpy()})

    def client_round(self, client, broadcast):
        client.train()
        return self._upload(client)

    def server_round(self, state, uploads, server):
        means = {}
        for upload in uploads:
            means.setdefault(upload.backbone, WeightedMean()).add(upload.payload["bias"], upload.num_images)
        groups = {**state.get("groups", {}), **{name: {"bias": mean.value()} for name, mean in means.items()}}
        with self.task.shared_randomness("scale"):
            scale = nn.Linear(3, 1)
        optimizer = torch.optim.Adam(scale.parameters(), lr=0.1)
        if "scale" in state:
            load_weights(scale, state["scale"])
            load_optimizer(optimizer, state["optimizer"])
        rows = torch.tensor([group["bias"]["bias"].tolist() for group in groups.values()])
        with server.phase("scale"):
            noise = torch.rand(len(rows), 1)
            server.fit(scale, [(rows, noise)], lambda x, y: (scale(x) - y).square().mean(), optimizer)
        state = {"groups": groups, "scale": weights_of(scale), "optimizer": optimizer_arrays(optimizer)}
        # Without a round, which the coordinator sets.
        return state, Broadcast(payload={"scale": weights_of(scale)}, groups=groups)

    def closing_upload(self, client, broadcast):
        client.memory["closed"] = client.memory.get("closed", 0) + 1
        with client.phase("closing"):
            client.fit("classifier", client.batches())
        return self._upload(client)

    def closing_server(self, state, uploads, server):
        mean = WeightedMean()
        for upload in uploads:
            mean.add(upload.payload["bias"], upload.num_images)
        with server.phase("closing"):
            noise = torch.rand(3).numpy()
        return Broadcast(payload={"bias": {"bias": mean.value()["bias"] + noise}})

    def predictors(self, client, broadcast):
        def worst(images):
            return -client.classifier(images)

        return {**super().predictors(client, broadcast), "worst": worst}

    def _upload(self, client):
        payload = {"bias": {"bias": weights_of(client.classifier.head)["bias"]}}
        return client.upload(payload)
"""
BACKBONES = "population.backbones=[{name: cnn_2x8, share: 0.75}, {name: resnet8, share: 0.25}]"


@pytest.fixture
def config_of(tmp_path, tiny_words, monkeypatch):
    (tmp_path / "everything.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(*overrides):
        words = ["method.name=everything:Everything", "placement.pool=inline", "data.name=npz", "partition.alpha=1"]
        words += ["population.num_clients=4", "population.feature_size=6", BACKBONES, "evaluate.every=1"]
        return load([], [*words, *tiny_words, f"run.output_dir={tmp_path}", *overrides], methods=config_classes())

    yield make
    sys.modules.pop("everything", None)


def records_of(path):
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if not key.startswith(MEASURED)} for record in records]


def test_every_part_of_an_exchange_is_in_the_record(config_of):
    path = run_federation(config_of("run.name=whole", "run.rounds=2"), plain=True).folder
    first, second, final = records_of(path)
    bytes_of_bias, bytes_of_scale = 3 * 4, 4 * 4
    assert "loss/server/scale" in first
    assert {key: value for key, value in second.items() if key.startswith("bytes/")} == {
        "bytes/up/bias": 4 * bytes_of_bias,
        "bytes/down/bias": 4 * bytes_of_bias,
        "bytes/down/scale": 4 * bytes_of_scale,
    }
    # All clients receive the last broadcast, upload once more, and receive the answer.
    assert {key: value for key, value in final.items() if key.startswith("bytes/")} == {
        "bytes/down/bias": 4 * bytes_of_bias,
        "bytes/down/scale": 4 * bytes_of_scale,
        "bytes/up/closing/bias": 4 * bytes_of_bias,
        "bytes/down/closing/bias": 4 * bytes_of_bias,
    }
    assert "loss/closing" in final
    others = {f"test/accuracy/{name}/mean" for name in ("trained", "worst")}
    assert others < first.keys()
    # After the closing exchange a client has received everything for good.
    assert others & final.keys() == {"test/accuracy/worst/mean"}
    with (path / "clients.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["round"], row["phase"]) == ("1", "round")]
    assert np.mean([float(row["accuracy/trained"]) for row in rows]) == first["test/accuracy/trained/mean"]
    with np.load(path / "confusion.npz") as arrays:
        assert list(arrays) == [
            *(f"round_{round:06d}{end}" for round in (1, 2) for end in ("", "/worst", "/trained")),
            *("final", "final/worst"),
        ]
        worst = arrays["round_000001/worst"].trace(axis1=1, axis2=2) / 15
    assert worst.mean() == pytest.approx(first["test/accuracy/worst/mean"])


def test_the_final_checkpoint_holds_the_server_and_the_last_broadcast(config_of):
    path = run_federation(config_of("run.name=final", "run.rounds=2"), plain=True).folder
    store = CheckpointStore(path / "checkpoints")
    final, last = store.manifests(pytest.fail)[:2]
    (state, closing), (state_of_round, _) = read_server(store, final), read_server(store, last)
    np.testing.assert_array_equal(state["scale"]["weight"], state_of_round["scale"]["weight"])
    assert state.keys() == {"groups", "scale", "optimizer"}
    # The answer of the closing exchange, which counts as one round more.
    assert (closing.round, closing.payload.keys()) == (3, {"bias"})
    shard = read_tree(store.read(final, "client_0000.pt"))
    np.testing.assert_array_equal(closing.payload["bias"]["bias"], shard["classifier"]["module"]["head.bias"])


def test_a_run_that_stops_before_the_closing_exchange_ends_with_the_same_bits(config_of):
    whole = run_federation(config_of("run.name=at-once", "run.rounds=2"), plain=True).folder
    parts = run_federation(config_of("run.name=in-parts", "run.rounds=1"), plain=True).folder
    resume_federation(parts, ["run.rounds=2"], plain=True)
    assert records_of(parts) == records_of(whole)
    # Once more after the last round: from the checkpoint of round 2.
    (parts / "metrics.jsonl").write_text("".join((parts / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]))
    run = json.loads((parts / "run.json").read_text())
    (parts / "run.json").write_text(json.dumps({**run, "status": "interrupted"}))
    resume_federation(parts, [], plain=True)
    assert records_of(parts) == records_of(whole)


def test_a_client_that_is_lost_after_the_closing_exchange_is_rebuilt_with_the_same_bits(config_of):
    config = config_of()
    population = Population.of(config)
    everyone = range(4)
    method = build(config.method, Task.of(config, population.dataset))
    with InlinePool(config, population.dataset, population.specs) as pool:
        state, broadcast = method.start()
        uploads = pool.map(ClientHost.run_round, everyone, broadcast)
        state, merged = method.server_round(state, uploads, Server(0, 1))
        broadcast = Broadcast(1, merged.payload, merged.groups)
        before = list(pool.map(ClientHost.digest, everyone))
        closing = method.closing_server(state, pool.map(ClientHost.closing_upload, everyone, broadcast), Server(0, 2))
        closed = list(pool.map(ClientHost.digest, everyone))
        pool.restore(everyone)
        assert list(pool.map(ClientHost.digest, everyone)) == closed
        assert not set(closed) & set(before)
        list(pool.map(ClientHost.finish, everyone, Broadcast(2, closing.payload)))
        finished = list(pool.map(ClientHost.digest, everyone))
        pool.restore(everyone)
        assert list(pool.map(ClientHost.digest, everyone)) == finished


def test_a_resumed_run_has_the_same_validation_images_and_ensemble(config_of):
    words = ["evaluate.validation_share=0.3", "evaluate.ensemble=true", "partition.kind=all", "method.name=lg_fedavg"]
    whole = run_federation(config_of("run.name=validated", "run.rounds=2", *words), plain=True).folder
    parts = run_federation(config_of("run.name=validated-in-parts", "run.rounds=1", *words), plain=True).folder
    resume_federation(parts, ["run.rounds=2"], plain=True)
    assert records_of(parts) == records_of(whole)
    *_, last, final = records_of(whole)
    keys = {"test/ensemble/mean", "test/ensemble/vote", "validation/accuracy/mean", "test/accuracy/trained/mean"}
    assert keys < last.keys()
    # The clients have received the last head for good, and the final record repeats its evaluation.
    received = {"bytes/down/head": last["bytes/down/head"], "clients/participating": 4}
    evaluated = {key: value for key, value in last.items() if key.startswith(("test/", "validation/"))}
    assert final == {"round": 2, "phase": "final", **received, **evaluated}
    with (whole / "clients.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "final"]
    # 36 images, of which 3 of each class are for validation.
    assert [row["num_images"] for row in rows] == ["27"] * 4
    found = [float(row["validation/accuracy"]) for row in rows]
    assert np.mean(found) == pytest.approx(final["validation/accuracy/mean"])
    # Some client trains on each image.
    assert [row["validation/global/accuracy"] for row in rows] == [""] * 4


def test_too_few_closing_uploads_end_the_run(config_of, monkeypatch, golden):
    config = config_of("run.rounds=1", "runtime.min_clients=4", "runtime.on_client_error=skip")
    monkeypatch.setattr(ClientHost, "closing_upload", _failing(ClientHost.closing_upload))
    with pytest.raises(TooFewClientsError) as refused:
        run_federation(config, plain=True)
    golden(refused.value)


def _failing(task):
    def closing_upload(host, client, broadcast):
        if client == 2:
            raise ZeroDivisionError
        return task(host, client, broadcast)

    closing_upload.__dict__.update(task.__dict__)
    return closing_upload
