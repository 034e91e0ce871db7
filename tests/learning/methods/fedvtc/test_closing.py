"""Uploads of Gaussians and generators once, after the last round."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedvtc.config.schema import Config, TrainingConfig
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import bytes_by_kind
from fedvtc.learning.methods import run_bytes
from fedvtc.learning.methods.fedvtc import FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig
from fedvtc.learning.methods.fedvtc.generator import reconstruction_error
from fedvtc.learning.methods.fedvtc.steps import generator_of
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

PLUS = {
    "statistics": {"covariance": "class_full"},
    "generator": {"training": "joint", "aggregation": "exchange"},
    "finetune": {"latents": "client_mixture"},
}


def two_rounds(federation, participants=((0, 1, 2), (0, 1, 2))):
    """Runs two rounds and the closing exchange; returns uploads, closing uploads and the last broadcast."""
    _, state, broadcast = federation.round(participants=participants[0])
    uploads, state, broadcast = federation.round(state, broadcast, participants=participants[1])
    broadcast = federation.method.last_broadcast(state, broadcast)
    closing = []
    for client in federation.clients if federation.method.has_closing else ():
        client.begin_round(3)
        closing.append(federation.method.closing_upload(client, broadcast))
    if closing:
        broadcast = federation.method.closing_server(state, closing, Server(3, 3))
    return uploads, closing, broadcast


def test_rounds_send_counts_means_and_one_spread_and_the_closing_the_rest(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(upload="once", **PLUS))
    uploads, closing, _ = two_rounds(federation)
    for upload, last in zip(uploads, closing, strict=True):
        num_held = len(upload.payload["prototypes"]["classes"])
        assert set(upload.payload) == {"prototypes", "covariance"}
        assert upload.payload["covariance"]["scatter"].shape == (6,)
        assert set(last.payload) == {"prototypes", "covariance", "generator"}
        assert last.payload["covariance"]["spread"].shape == (num_held, 6, 6)


def test_the_closing_sends_what_each_client_has_also_one_that_missed_the_last_round(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(upload="once", **PLUS))
    _, closing, broadcast = two_rounds(federation, participants=((0, 1, 2), (1,)))
    assert [upload.client for upload in closing] == [0, 1, 2]
    mixture = broadcast.payload["mixture"]
    assert mixture["owner"].tolist() == [0, 0, 1, 1, 1, 2]
    assert mixture["classes"].tolist() == [0, 1, 0, 1, 2, 2]
    for number, client in enumerate(federation.clients):
        own = client.statistics("class_full")
        np.testing.assert_allclose(mixture["mean"][mixture["owner"] == number], own.mean_KD, rtol=1e-5)
        for name, array in weights_of(generator_of(client).decoder).items():
            assert np.array_equal(broadcast.payload["generators"][name][number], array)


@pytest.mark.parametrize(("epochs", "owners"), [(0, [0, 0, 1, 1, 1]), (1, [0, 0, 1, 1, 1, 2])])
def test_an_untrained_generator_is_not_sent(tiny_federation, tiny_fedvtc, epochs, owners):
    keys = {**PLUS, "generator": {**PLUS["generator"], "closing_epochs": epochs}}
    federation = tiny_federation(tiny_fedvtc(upload="once", **keys))
    _, closing, broadcast = two_rounds(federation, participants=((0, 1), (1,)))
    assert bool(closing[2].payload) == bool(epochs)
    assert broadcast.payload["mixture"]["owner"].tolist() == owners
    before = weights_digest(federation.clients[2].classifier)
    federation.method.finish(federation.clients[2], broadcast)
    assert weights_digest(federation.clients[2].classifier) != before


def test_closing_passes_train_the_generator_alone_and_reconstruct_better(tiny_federation, tiny_fedvtc):
    generator = {**PLUS["generator"], "batch_size": 3}
    sent, errors, digests = [], [], []
    for epochs in (0, 60):
        keys = {**PLUS, "generator": {**generator, "closing_epochs": epochs}}
        federation = tiny_federation(tiny_fedvtc(upload="once", **keys))
        _, closing, _ = two_rounds(federation)
        client = federation.clients[0]
        with torch.no_grad():
            decoded = generator_of(client)(client.features())
            errors.append(reconstruction_error(decoded, client.images.inputs()).item())
        sent.append(closing[0].payload)
        digests.append(weights_digest(client.classifier))
    assert digests[0] == digests[1]
    for kind in ("prototypes", "covariance"):
        for name, array in sent[0][kind].items():
            assert np.array_equal(array, sent[1][kind][name]), (kind, name)
    assert errors[1] < errors[0]
    assert not all(np.array_equal(array, sent[1]["generator"][name]) for name, array in sent[0]["generator"].items())


def test_closing_passes_are_no_part_of_the_rounds():
    plain = FedVTCConfig(upload="once", generator=GeneratorConfig(aggregation="exchange"))
    closing = replace(plain, generator=replace(plain.generator, closing_epochs=5))
    assert closing.of_rounds() == plain.of_rounds()


def test_the_same_gaussians_and_generators_are_exchanged_as_with_uploads_of_every_round(tiny_federation, tiny_fedvtc):
    # Without a pull the rounds are the same, because nothing that they train with depends on the form of the spread.
    found = []
    for upload in ("every_round", "once"):
        _, _, broadcast = two_rounds(tiny_federation(tiny_fedvtc(upload=upload, prototype_weight=0.0, **PLUS)))
        found.append({kind: broadcast.payload[kind] for kind in ("mixture", "generators")})
    for kind, arrays in found[0].items():
        for name, array in arrays.items():
            assert np.array_equal(array, found[1][kind][name]), (kind, name)


@pytest.mark.parametrize(("wire", "bytes_each"), [("float32", 4), ("float16", 2)])
def test_a_narrow_wire_is_counted_as_sent_and_finetunes(tiny_federation, tiny_fedvtc, wire, bytes_each):
    federation = tiny_federation(tiny_fedvtc(upload="once", wire=wire, **PLUS))
    uploads, closing, broadcast = two_rounds(federation)
    weights = sum(array.size for array in weights_of(generator_of(federation.clients[0]).decoder).values())
    assert bytes_by_kind(closing[0].payload)["generator"] == weights * bytes_each
    assert bytes_by_kind(broadcast.payload)["generators"] == 3 * weights * bytes_each
    # Client 0 holds two classes: triangles of 21 numbers, and in a round one vector of six variances.
    assert bytes_by_kind(closing[0].payload)["covariance"] == 2 * 21 * bytes_each
    assert bytes_by_kind(uploads[0].payload)["covariance"] == 6 * bytes_each
    client = federation.clients[2]
    before = weights_digest(client.classifier)
    federation.method.finish(client, broadcast)
    assert weights_digest(client.classifier) != before
    images, labels_N = federation.method.samples(client, broadcast, num_per_class=2)
    assert images.isfinite().all()
    assert labels_N.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("keys", [{}, {"upload": "once"}, {"upload": "once", "wire": "float16"}], ids=str)
def test_planned_bytes_of_a_run_are_those_of_its_messages(tiny_federation, tiny_fedvtc, keys):
    federation = tiny_federation(tiny_fedvtc(**keys, **PLUS), indices=range(6))
    method = federation.method
    uploads, state, broadcast = federation.round()
    closing, answer = {}, bytes_by_kind(method.last_broadcast(state, broadcast).payload)
    if method.has_closing:
        all_closing = [method.closing_upload(client, broadcast) for client in federation.clients]
        closing = bytes_by_kind(all_closing[0].payload)
        closed = bytes_by_kind(method.closing_server(state, all_closing, Server(3, 2)).payload)
        answer = {kind: answer.get(kind, 0) + size for kind, size in closed.items()}
    assert run_bytes(method, 3) == {
        "round": {"up": bytes_by_kind(uploads[0].payload), "down": bytes_by_kind(broadcast.payload)},
        "end": {"up": closing, "down": answer},
    }


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"upload": "once"}, "upload"),
        ({"upload": "once", **PLUS, "finetune": {"latents": "client_mixture", "when": "both"}}, "upload"),
        ({**PLUS, "wire": "float16"}, "wire"),
        ({**PLUS, "finetune": {"latents": "client_mixture", "pool": 100}}, "finetune.pool"),
        ({"generator": {"training": "joint", "sigma": "learned"}}, "generator.sigma"),
        ({"generator": {"training": "joint", "optimizer": {"name": "sgd"}}}, "generator.optimizer.name"),
        ({"upload": "once", "wire": "float16", **PLUS}, None),
        ({"generator": {"closing_epochs": 1}}, "generator.closing_epochs"),
        ({"upload": "once", **PLUS, "generator": {**PLUS["generator"], "closing_epochs": 1}}, None),
    ],
    ids=str,
)
def test_keys_that_contradict_each_other_are_reported(keys, key):
    sections = {"statistics": StatisticsConfig, "generator": GeneratorConfig, "finetune": FinetuneConfig}
    config = FedVTCConfig(
        **{name: sections[name](**value) if name in sections else value for name, value in keys.items()}
    )
    assert [text.partition(": ")[0] for text in config.problems(Config())] == [key] * (key is not None)


def test_joint_training_refuses_a_round_of_steps():
    whole = Config(training=TrainingConfig(steps=20))
    assert FedVTCConfig().problems(whole) == []
    (text,) = FedVTCConfig(generator=GeneratorConfig(training="joint")).problems(whole)
    assert text.partition(": ")[0] == "generator.training"
