"""Every switch of FedVTC changes the results from its step on, and nothing before."""

from dataclasses import fields
from typing import get_args, get_type_hints

import numpy as np
import pytest

from fedvtc.config.schema import DataConfig, OptimizerConfig
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import fedvtc
from fedvtc.learning.methods.fedvtc import FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig
from fedvtc.learning.methods.fedvtc.steps import generator_of
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

STAGES = ("classifier1", "generator1", "classifier2", "generator2", "finished")


def decoder_of(client):
    return b"".join(array.tobytes() for array in weights_of(generator_of(client).decoder).values())


@pytest.fixture(scope="module")
def run(tiny_federation, tiny_fedvtc):
    """Runs two rounds and the last step, once per config; returns the weights of each client after each stage."""
    done = {}

    def go(**changes):
        if str(changes) not in done:
            done[str(changes)] = run_once(**changes)
        return done[str(changes)]

    def run_once(**changes):
        federation = tiny_federation(tiny_fedvtc(**changes))
        state, broadcast, weights = {}, Broadcast(), {}
        for round in (1, 2):
            _, state, broadcast = federation.round(state, broadcast)
            weights[f"classifier{round}"] = [weights_digest(client.classifier) for client in federation.clients]
            weights[f"generator{round}"] = [decoder_of(client) for client in federation.clients]
        last = federation.method.last_broadcast(state, broadcast)
        for client in federation.clients:
            client.begin_round(3)
        if federation.method.has_closing:
            closing = [federation.method.closing_upload(client, last) for client in federation.clients]
            last = federation.method.closing_server(state, closing, Server(3, 3))
        for client in federation.clients:
            federation.method.finish(client, last)
        weights["finished"] = [weights_digest(client.classifier) for client in federation.clients]
        return weights

    return go


FULL = {"statistics": {"covariance": "class_full"}}
KEPT = FULL | {"generator": {"aggregation": "none"}, "finetune": {"latents": "client_mixture"}}
MIXTURE = {"finetune": {"latents": "client_mixture"}}
EVERY_ROUND = {"finetune": {"when": "every_round"}}
JOINT = {"generator": {"training": "joint"}}
DECAYED = OptimizerConfig(name="adamw", weight_decay=0.1)
PENALISED = OptimizerConfig(name="adam", weight_decay=0.1)
SLOW = OptimizerConfig(name="sgd", lr=1e-4)


@pytest.mark.parametrize(
    ("changes", "base", "first"),
    [
        ({"prototype_weight": 0.0}, {}, "classifier2"),
        ({"wire": "float32"}, {}, "classifier2"),
        ({"wire": "float16"}, {"wire": "float32"}, "classifier2"),
        ({"upload": "once", **KEPT}, KEPT, "generator1"),
        ({"statistics": {"covariance": "scalar"}}, {}, "generator1"),
        ({"statistics": {"covariance": "class_diagonal"}}, {}, "generator1"),
        (FULL, {}, "generator1"),
        ({"statistics": {"sigma_floor": 2.0}}, {}, "generator1"),
        ({"statistics": {"covariance": "class_full", "prior_count": 90.0}}, FULL, "generator1"),
        ({"generator": {"epochs": 2}}, {}, "generator1"),
        ({"generator": {"batch_size": 4}}, {}, "generator1"),
        ({"generator": {"optimizer": SLOW}}, {}, "generator1"),
        ({"generator": {"width": 8}}, {}, "generator1"),
        ({"generator": {"sigma": "learned", "epochs": 3}}, {"generator": {"epochs": 3}}, "generator1"),
        ({"generator": {"aggregation": "none"}}, {}, "generator2"),
        ({"generator": {"gamma": 0.0}}, {}, "generator2"),
        ({"generator": {"gamma": 9.0}}, {}, "generator2"),
        ({"generator": {"dm_samples": 3}}, {}, "generator2"),
        ({"generator": {"dm_classes": "held"}}, {}, "generator2"),
        (JOINT, {}, "classifier1"),
        ({"generator": {"training": "joint", "reconstruction_weight": 0.5}}, JOINT, "classifier1"),
        ({"generator": {"training": "joint", "noise": 0.5}}, JOINT, "classifier1"),
        (EVERY_ROUND, {}, "classifier2"),
        ({"finetune": {"when": "both"}}, {}, "classifier2"),
        ({"finetune": {"when": "both"}}, EVERY_ROUND, "finished"),
        ({"finetune": {"when": "never"}}, {}, "finished"),
        ({"finetune": {"when": "every_round", "epochs_per_round": 2}}, EVERY_ROUND, "classifier2"),
        ({"finetune": {"epochs": 2}}, {}, "finished"),
        ({"finetune": {"images_per_class": 5}}, {}, "finished"),
        ({"finetune": {"batch_size": 4}}, {}, "finished"),
        ({"finetune": {"optimizer": SLOW}}, {}, "finished"),
        ({"finetune": {"optimizer": DECAYED}}, {"finetune": {"optimizer": PENALISED}}, "finished"),
        ({"finetune": {"schedule": "cosine"}}, {}, "finished"),
        ({"finetune": {"averaging": 0.5}}, {}, "finished"),
        ({"finetune": {"pool": 4}}, {}, "finished"),
        (MIXTURE, {}, "finished"),
        (MIXTURE | FULL, FULL, "finished"),
        ({"finetune": {"augment": "affine"}}, {}, "finished"),
        ({"finetune": {"real_data": "after"}}, {}, "finished"),
        ({"finetune": {"real_data": "mixed"}}, {}, "finished"),
        (
            MIXTURE | {"generator": {"aggregation": "exchange"}},
            MIXTURE | {"generator": {"aggregation": "none"}},
            "finished",
        ),
    ],
    ids=str,
)
def test_a_switch_matters_from_its_step_on(run, changes, base, first):
    changed, plain = run(**changes), run(**base)
    for stage in STAGES[: STAGES.index(first)]:
        assert changed[stage] == plain[stage], stage
    assert changed[first][0] != plain[first][0]


def test_every_switch_is_tested():
    choices = {
        (section.__name__, item.name): set(get_args(get_type_hints(section)[item.name]))
        for section in (FedVTCConfig, StatisticsConfig, GeneratorConfig, FinetuneConfig)
        for item in fields(section)
        if get_args(get_type_hints(section)[item.name]) and "None" not in str(get_type_hints(section)[item.name])
    }
    assert choices == {
        ("FedVTCConfig", "upload"): {"every_round", "once"},
        ("FedVTCConfig", "wire"): {"exact", "float32", "float16"},
        ("StatisticsConfig", "covariance"): {"scalar", "client_diagonal", "class_diagonal", "class_full"},
        ("GeneratorConfig", "training"): {"alternating", "joint"},
        ("GeneratorConfig", "aggregation"): {"mean", "none", "exchange"},
        ("GeneratorConfig", "sigma"): {"statistics", "learned"},
        ("GeneratorConfig", "dm_classes"): {"all", "held"},
        ("FinetuneConfig", "when"): {"end", "every_round", "both", "never"},
        ("FinetuneConfig", "schedule"): {"constant", "cosine"},
        ("FinetuneConfig", "latents"): {"class", "client_mixture"},
        ("FinetuneConfig", "augment"): {"none", "affine"},
        ("FinetuneConfig", "real_data"): {"none", "after", "mixed", "balanced"},
    }
    assert fedvtc.METHOD.config_class is FedVTCConfig


def test_a_client_with_every_class_matches_the_same_classes_either_way(run):
    every, held = run(), run(generator={"dm_classes": "held"})
    assert [one == other for one, other in zip(every["generator2"], held["generator2"], strict=True)] == [
        False,
        True,
        False,
    ]


def test_beta_reaches_a_learned_sigma_and_nothing_else(tiny_federation, tiny_fedvtc, run):
    # With a measured sigma_k and a frozen classifier the divergence has no weight to move.
    assert run(generator={"beta": 0.0}) == run(generator={"beta": 50.0})
    factors = []
    for beta in (0.0, 50.0):
        federation = tiny_federation(tiny_fedvtc(generator={"sigma": "learned", "beta": beta}))
        _, state, broadcast = federation.round()
        first = generator_of(federation.clients[0]).log_factor_D.tolist()
        federation.round(state, broadcast)
        factors.append((first, generator_of(federation.clients[0]).log_factor_D.tolist()))
    assert factors[0][0] == factors[1][0] != [0.0] * 6
    assert factors[0][1] != factors[1][1]


def test_a_learned_sigma_stays_with_its_client(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(generator={"sigma": "learned"}))
    uploads, _, broadcast = federation.round()
    kept = [generator_of(client).log_factor_D.tolist() for client in federation.clients]
    assert kept[0] != kept[1] != kept[2]
    for payload in (uploads[0].payload, broadcast.payload):
        assert set(payload["generator"]) == set(generator_of(federation.clients[0]).decoder.state_dict())
    federation.method.samples(federation.clients[0], broadcast, num_per_class=1)
    assert generator_of(federation.clients[0]).log_factor_D.tolist() == kept[0]


@pytest.mark.parametrize("aggregation", ["none", "exchange"])
def test_without_averaging_generators_stay_with_their_clients(tiny_federation, tiny_fedvtc, aggregation):
    federation = tiny_federation(tiny_fedvtc(generator={"aggregation": aggregation}, **MIXTURE))
    uploads, state, broadcast = federation.round()
    assert all(("generator" in upload.payload) == (aggregation == "exchange") for upload in uploads)
    assert "generator" not in broadcast.payload
    own = [decoder_of(client) for client in federation.clients]
    assert len(set(own)) == 3
    for client in federation.clients:
        federation.method.finish(client, federation.method.last_broadcast(state, broadcast))
    assert [decoder_of(client) for client in federation.clients] == own


def test_exchanged_images_come_from_the_generators_of_the_class_holders(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(generator={"aggregation": "exchange"}, **MIXTURE))
    _, state, broadcast = federation.round(participants=(0, 2))
    last = federation.method.last_broadcast(state, broadcast)
    # The generator of client 2, the only one that holds class 2, draws nothing but grey.
    generators = {name: array.copy() for name, array in last.payload["generators"].items()}
    for array in generators.values():
        array[1] = 0.0
    changed = Broadcast(1, {**last.payload, "generators": generators})
    images, labels_N = federation.method.samples(federation.clients[1], changed, num_per_class=2)
    brightest_N = images.flatten(1).abs().amax(dim=1)
    assert labels_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert (brightest_N[:4] > 0).all()
    assert (brightest_N[4:] == 0).all()


@pytest.mark.parametrize(
    ("when", "in_rounds", "at_the_end"),
    [("end", [0, 0], 1), ("every_round", [0, 1], 0), ("both", [0, 1], 1), ("never", [0, 0], 0)],
)
def test_finetuning_happens_at_the_configured_time(tiny_federation, tiny_fedvtc, when, in_rounds, at_the_end):
    federation = tiny_federation(tiny_fedvtc(finetune={"when": when}))
    state, broadcast, seen = {}, Broadcast(), []
    for _ in range(2):
        uploads, state, broadcast = federation.round(state, broadcast)
        seen.append(sum("loss/finetune" in upload.scalars for upload in uploads) // 3)
    assert seen == in_rounds
    assert federation.method.has_finish == bool(at_the_end)
    client = federation.clients[0]
    client.begin_round(3)
    federation.method.finish(client, federation.method.last_broadcast(state, broadcast))
    assert ("loss/finetune" in client.scalars) == bool(at_the_end)


@pytest.mark.parametrize(("real_data", "has_real_pass"), [("none", False), ("mixed", False), ("after", True)])
def test_training_on_real_images_follows_if_configured(tiny_federation, tiny_fedvtc, real_data, has_real_pass):
    federation = tiny_federation(tiny_fedvtc(finetune={"real_data": real_data}))
    _, state, broadcast = federation.round()
    client = federation.clients[0]
    client.begin_round(2)
    federation.method.finish(client, federation.method.last_broadcast(state, broadcast))
    assert ("time/finetune_real" in client.scalars) == has_real_pass


def test_images_per_class_and_latents_decide_what_is_drawn(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(**MIXTURE))
    _, state, broadcast = federation.round()
    last = federation.method.last_broadcast(state, broadcast)
    client = federation.clients[1]
    mixed, labels_N = federation.method.samples(client, last, num_per_class=7)
    assert np.bincount(labels_N.numpy()).tolist() == [7, 7, 7]
    plain, _ = federation.method.samples(client, broadcast, num_per_class=7)
    assert not np.array_equal(mixed.numpy(), plain.numpy())


@pytest.mark.parametrize("augment", ["shift", "shift_flip"])
def test_real_images_may_be_augmented_too(tiny_federation, tiny_fedvtc, augment):
    digests = set()
    for data in (DataConfig(), DataConfig(augment=augment)):
        federation = tiny_federation(tiny_fedvtc(finetune={"real_data": "mixed"}), data=data)
        federation.round()
        digests.add(weights_digest(federation.clients[0].classifier))
    assert len(digests) == 2
