"""Uploads, the server's merge and the start of the next round. test_fedvtc_switches tests the switches."""

import numpy as np
import pytest

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods import Task
from fedvtc.learning.methods.fedvtc import FedVTC, FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig
from fedvtc.learning.methods.fedvtc.steps import generator_of
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

FORMS = ["scalar", "client_diagonal", "class_diagonal", "class_full"]
# Steps so small that no weight changes by more than rounding.
STILL = OptimizerConfig(name="sgd", lr=1e-30, momentum=0.0)


def server(form="client_diagonal", **keys):
    config = FedVTCConfig(statistics=StatisticsConfig(covariance=form, sigma_floor=0.01), **keys)
    return FedVTC(config, Task(num_classes=4, num_channels=1, image_size=8, feature_size=2, seed=0))


def make_upload(client, features_BD, labels_B, *, form="client_diagonal", weight=0.0, round=1):
    """Statistics of these features and a generator of one array."""
    statistics = FeatureStatistics.of(np.array(features_BD), np.array(labels_B), form)
    generator = {"w": np.array([weight, 2 * weight], dtype=np.float32)}
    return Upload(client, round, len(labels_B), {**statistics.to_arrays(), "generator": generator})


def rows_of(gaussians):
    return dict(zip(gaussians.classes_K.tolist(), gaussians.mean_KD.tolist(), strict=True))


def anchors_of(broadcast):
    return ClassGaussians.from_arrays(broadcast.payload["prototypes"], broadcast.payload["covariance"])


def assert_same_arrays(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], **({"rtol": 0} | tolerance))


def test_the_server_averages_by_images_by_hand():
    uploads = [
        make_upload(0, [[1.0, 2.0], [3.0, 4.0]], [0, 0], weight=1.0),
        make_upload(1, [[5.0, 6.0], [9.0, 9.0], [7.0, 9.0], [8.0, 9.0]], [0, 2, 2, 2], weight=4.0),
    ]
    _, broadcast = server().server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.round == 1
    assert set(broadcast.payload) == {"prototypes", "covariance", "generator"}
    # Class 0: (1 + 3 + 5) / 3 and (2 + 4 + 6) / 3.
    anchors = anchors_of(broadcast)
    assert rows_of(anchors) == {0: [3.0, 4.0], 2: [8.0, 9.0]}
    assert anchors.count_K.tolist() == [3, 3]
    # Within classes: 4 + 0 + 4 and 1 + 1 + 0 in the first feature, 4 + 0 + 4 in the second, six images in all.
    np.testing.assert_allclose(anchors.spread, [np.sqrt(10 / 6), np.sqrt(8 / 6)], rtol=1e-6)
    # Two images against four.
    generator = broadcast.payload["generator"]
    assert generator["w"].tolist() == [3.0, 6.0]
    assert generator["w"].dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_merged_gaussians_are_those_of_all_features_in_one_place(form):
    rng = np.random.default_rng(0)
    features_BD, labels_B = rng.normal(size=(30, 2)), rng.integers(0, 4, 30)
    parts = np.split(np.arange(30), [4, 5, 19])
    uploads = [make_upload(k, features_BD[part], labels_B[part], form=form) for k, part in enumerate(parts)]
    method = server(form)
    _, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    whole = method._gaussians(FeatureStatistics.of(features_BD, labels_B, form))
    assert_same_arrays(broadcast.payload["prototypes"], whole.to_payload()["prototypes"], atol=1e-6)
    np.testing.assert_allclose(broadcast.payload["covariance"]["spread"], whole.spread, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_that_nobody_holds_keeps_its_last_gaussian(form):
    method = server(form)
    state, first = method.server_round(
        {}, [make_upload(0, [[1.0, 1.0], [2.0, 2.0], [2.0, 4.0]], [0, 1, 1], form=form)], Server(0, 1)
    )
    now = make_upload(1, [[9.0, 9.0], [3.0, 3.0], [3.0, 5.0]], [1, 3, 3], form=form, round=2)
    state, broadcast = method.server_round(state, [now], Server(0, 1))
    anchors = anchors_of(broadcast)
    assert rows_of(anchors) == {0: [1.0, 1.0], 1: [9.0, 9.0], 3: [3.0, 4.0]}
    if form.startswith("class_"):
        assert np.array_equal(anchors.spread[0], anchors_of(first).spread[0])
    else:
        alone, _ = method.server_round({}, [now], Server(0, 1))
        assert np.array_equal(anchors.spread, alone["anchors"]["covariance"]["spread"])
    # The class is kept for all later rounds.
    _, broadcast = method.server_round(state, [make_upload(1, [[3.0, 3.0]], [3], form=form, round=3)], Server(0, 1))
    assert rows_of(anchors_of(broadcast))[0] == [1.0, 1.0]


@pytest.mark.parametrize("when", ["end", "every_round", "both"])
def test_the_mixture_has_each_clients_own_gaussians_and_the_last_of_absent_ones(when):
    method = server(finetune=FinetuneConfig(latents="client_mixture", when=when))
    first = [
        make_upload(0, [[1.0, 1.0], [2.0, 4.0], [4.0, 4.0]], [0, 1, 1]),
        make_upload(2, [[5.0, 5.0], [5.0, 7.0]], [1, 1]),
    ]
    state, _ = method.server_round({}, iter(first), Server(0, 1))
    second = make_upload(2, [[6.0, 6.0], [6.0, 9.0], [8.0, 9.0]], [3, 3, 3], round=2)
    state, broadcast = method.server_round(state, iter([second]), Server(0, 1))
    assert ("mixture" in broadcast.payload) == (when != "end")
    last = method.last_broadcast(state, broadcast)
    mixture = last.payload["mixture"]
    assert last.round == 2
    assert mixture["owner"].tolist() == [0, 0, 1]
    assert mixture["classes"].tolist() == [0, 1, 3]
    assert mixture["count"].tolist() == [1, 2, 3]
    assert mixture["mean"].tolist() == [[1.0, 1.0], [3.0, 4.0], [np.float32(20 / 3), 8.0]]
    own = [method._gaussians(FeatureStatistics.from_arrays(part.payload, "client_diagonal")) for part in first]
    now = method._gaussians(FeatureStatistics.from_arrays(second.payload, "client_diagonal"))
    assert mixture["spread"].tolist() == [own[0].spread.tolist()] * 2 + [now.spread.tolist()]


def test_exchanged_generators_are_the_clients_own_and_the_last_of_absent_ones():
    method = server(
        generator=GeneratorConfig(aggregation="exchange"), finetune=FinetuneConfig(latents="client_mixture")
    )
    uploads = [make_upload(client, [[1.0, 1.0]], [client], weight=client + 1.0) for client in range(3)]
    state, broadcast = method.server_round({}, uploads, Server(0, 1))
    assert set(broadcast.payload) == {"prototypes", "covariance"}
    state, broadcast = method.server_round(
        state, [make_upload(1, [[1.0, 1.0]], [1], weight=9.0, round=2)], Server(0, 1)
    )
    last = method.last_broadcast(state, broadcast)
    assert last.payload["generators"]["w"].tolist() == [[1.0, 2.0], [9.0, 18.0], [3.0, 6.0]]


@pytest.mark.parametrize("aggregation", ["mean", "none"])
def test_the_server_keeps_generators_only_to_exchange_them(aggregation):
    method = server(
        generator=GeneratorConfig(aggregation=aggregation), finetune=FinetuneConfig(latents="client_mixture")
    )
    state, _ = method.server_round(
        {}, [make_upload(client, [[1.0, 1.0]], [0], weight=1.0) for client in range(3)], Server(0, 1)
    )
    assert [dict(kept.get("generator", {})) for kept in state["clients"].values()] == [{}] * 3


def test_all_clients_start_from_one_generator(tiny_federation, tiny_fedvtc):
    clients = tiny_federation(tiny_fedvtc()).clients
    assert len({weights_digest(generator_of(client)) for client in clients}) == 1
    assert len({weights_digest(client.classifier) for client in clients}) == 3
    assert weights_digest(generator_of(tiny_federation(tiny_fedvtc()).clients[0])) == weights_digest(
        generator_of(clients[0])
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("when", ["end", "every_round"])
def test_uploads_are_of_the_model_after_this_rounds_training(tiny_federation, tiny_fedvtc, form, when):
    federation = tiny_federation(tiny_fedvtc(statistics={"covariance": form}, finetune={"when": when}))
    state, broadcast = {}, Broadcast()
    for _ in range(2):
        before = [client.statistics(form).mean_KD for client in federation.clients]
        uploads, state, broadcast = federation.round(state, broadcast)
        for client, upload, old_KD in zip(federation.clients, uploads, before, strict=True):
            now = client.statistics(form).to_arrays()
            assert_same_arrays(upload.payload["prototypes"], now["prototypes"])
            assert_same_arrays(upload.payload["covariance"], now["covariance"])
            assert_same_arrays(upload.payload["generator"], weights_of(generator_of(client).decoder))
            assert not np.allclose(upload.payload["prototypes"]["mean"], old_KD, atol=1e-3)
    assert [upload.payload["prototypes"]["classes"].tolist() for upload in uploads] == [[0, 1], [0, 1, 2], [2]]


def test_the_broadcast_is_the_mean_of_real_uploads(tiny_federation, tiny_fedvtc):
    uploads, _, broadcast = tiny_federation(tiny_fedvtc()).round()
    for name, mean in broadcast.payload["generator"].items():
        arrays = [upload.payload["generator"][name].astype(np.float64) for upload in uploads]
        np.testing.assert_allclose(mean, np.average(arrays, axis=0, weights=[10, 14, 3]), rtol=1e-6, atol=1e-8)


def test_the_next_round_starts_from_the_generator_of_the_broadcast(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(generator={"optimizer": STILL}))
    _, _, broadcast = federation.round()
    shifted = {name: array + np.float32(0.25) for name, array in broadcast.payload["generator"].items()}
    upload = federation.upload(0, Broadcast(1, {**broadcast.payload, "generator": shifted}))
    assert_same_arrays(upload.payload["generator"], shifted, atol=1e-25)


def test_the_next_round_is_pulled_to_the_prototypes_of_the_broadcast_in_units_of_its_spread(
    tiny_federation, tiny_fedvtc
):
    def digest(shift=0.0, stretch=1.0):
        federation = tiny_federation(tiny_fedvtc())
        _, _, broadcast = federation.round()
        prototypes, spread = dict(broadcast.payload["prototypes"]), broadcast.payload["covariance"]["spread"]
        prototypes["mean"] = prototypes["mean"] + np.float32(shift)
        covariance = {"spread": spread * np.float32(stretch)}
        changed = {**broadcast.payload, "prototypes": prototypes, "covariance": covariance}
        federation.upload(0, Broadcast(1, changed))
        return weights_digest(federation.clients[0].classifier)

    assert digest() == digest()
    assert len({digest(), digest(shift=1.0), digest(stretch=2.0)}) == 3


def test_the_first_round_has_no_server_and_later_ones_have_every_term(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(prototype_weight=0.5, generator={"beta": 2.0, "gamma": 3.0}))
    uploads, state, broadcast = federation.round()
    losses = {name for name in uploads[0].scalars if name.startswith("loss/")}
    assert losses == {"loss/train", "loss/classification", "loss/generator", "loss/reconstruction"}
    uploads, _, _ = federation.round(state, broadcast)
    scalars = uploads[0].scalars
    pulled = scalars["loss/classification"] + 0.5 * scalars["loss/prototype"]
    assert scalars["loss/train"] == pytest.approx(pulled, rel=1e-6)
    objective = scalars["loss/reconstruction"] + 2 * scalars["loss/kl"] + 3 * scalars["loss/distribution_matching"]
    assert scalars["loss/generator"] == pytest.approx(objective, rel=1e-6)
    assert {"time/train", "time/statistics", "time/generator"} <= set(scalars)


def test_a_late_client_receives_the_latest_broadcast(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(generator={"optimizer": STILL}))
    _, state, broadcast = federation.round(participants=(0, 1))
    uploads, _, _ = federation.round(state, broadcast, participants=(2,))
    assert_same_arrays(uploads[0].payload["generator"], broadcast.payload["generator"], atol=1e-25)
    assert "loss/prototype" in uploads[0].scalars


def test_samples_are_of_the_generator_and_the_classes_of_the_broadcast(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc())
    client = federation.clients[0]
    assert federation.method.samples(client, Broadcast(), num_per_class=2) is None
    _, _, broadcast = federation.round(participants=(0,))
    classifier = weights_digest(client.classifier)
    images, labels_N = federation.method.samples(client, broadcast, num_per_class=3)
    assert images.shape == (6, 1, 8, 8)
    assert labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert_same_arrays(weights_of(generator_of(client).decoder), broadcast.payload["generator"])
    assert weights_digest(client.classifier) == classifier
    zeros = {name: np.zeros_like(array) for name, array in broadcast.payload["generator"].items()}
    grey, _ = federation.method.samples(
        client, Broadcast(1, {**broadcast.payload, "generator": zeros}), num_per_class=1
    )
    assert grey.abs().max() == 0.0


def test_the_operations_of_fine_tuning_have_those_of_the_pool(tiny_federation, tiny_fedvtc):
    counts = []
    for pool in (4, 8, 12):
        federation = tiny_federation(tiny_fedvtc(finetune={"pool": pool}))
        _, state, broadcast = federation.round()
        client = federation.clients[0]
        federation.method.finish(client, federation.method.last_broadcast(state, broadcast))
        counts.append(client.scalars["flops/finetune"])
    assert counts[1] - counts[0] == pytest.approx(counts[2] - counts[1])
    assert counts[1] > counts[0]


def test_finishing_trains_on_images_of_the_broadcast_and_not_the_generator(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc())
    _, state, broadcast = federation.round()
    last = federation.method.last_broadcast(state, broadcast)
    assert federation.method.has_finish
    for client in federation.clients:
        before = weights_digest(client.classifier)
        client.begin_round(2)
        federation.method.finish(client, last)
        assert weights_digest(client.classifier) != before
        assert_same_arrays(weights_of(generator_of(client).decoder), broadcast.payload["generator"])
        assert set(client.scalars) - {"memory/finetune"} == {
            "time/finetune",
            "cpu/finetune",
            "flops/finetune",
            "loss/finetune",
        }
