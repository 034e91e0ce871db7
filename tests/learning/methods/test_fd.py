import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fd import FDConfig
from fedvtc.learning.server import Server

TASK = Task(num_classes=2, num_channels=1, image_size=8, feature_size=2, seed=0)


def upload(client, classes, mean, round=1):
    own = {"classes": np.array(classes), "mean": np.array(mean, dtype=np.float32)}
    return Upload(client, round, 5, {"predictions": own})


def teacher(method, client, broadcast):
    targets_CC, held_C = method._teacher(client, broadcast)
    return targets_CC.astype(float).round(4).tolist(), held_C.tolist()


def test_the_teacher_is_the_mean_of_the_others_by_hand(make_client):
    method, client = build(FDConfig(), TASK), make_client()
    client.memory.update({"round": 1, "classes": np.array([0]), "mean": np.array([[0.9, 0.1]], dtype=np.float32)})
    uploads = [upload(0, [0], [[0.9, 0.1]]), upload(1, [0], [[0.7, 0.3]]), upload(2, [0, 1], [[0.5, 0.5], [0.2, 0.8]])]
    state, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.round == 1
    assert broadcast.payload["predictions"]["holders"].tolist() == [3, 1]
    assert teacher(method, client, broadcast) == ([[0.6, 0.4], [0.2, 0.8]], [True, True])
    # An upload of an earlier round is not in the sum.
    client.memory["round"] = 0
    assert teacher(method, client, broadcast) == ([[0.7, 0.3], [0.2, 0.8]], [True, True])
    # The only holder of class 1 has no other teacher.
    client.memory.update({"round": 1, "classes": np.array([1]), "mean": np.array([[0.2, 0.8]], dtype=np.float32)})
    assert teacher(method, client, broadcast)[1] == [True, False]
    # Nobody holds class 0 in round 2.
    assert set(broadcast.payload["predictions"]) == {"sum", "holders"}
    _, broadcast = method.server_round(state, [upload(1, [1], [[0.4, 0.6]], round=2)], Server(0, 2))
    assert broadcast.payload["predictions"]["rounds"].tolist() == [1, 2]
    assert broadcast.payload["predictions"]["rounds"].dtype == np.int32
    assert teacher(method, client, broadcast) == ([[0.7, 0.3], [0.4, 0.6]], [True, True])


def test_a_sum_that_is_kept_from_an_earlier_round_loses_the_own_part_too(make_client):
    method, client = build(FDConfig(), TASK), make_client()
    own = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    client.memory.update({"round": 1, "classes": np.array([0, 1]), "mean": own})
    # The client is the only holder of class 1, and one of two holders of class 0.
    uploads = [upload(0, [0, 1], own), upload(1, [0], [[0.7, 0.3]])]
    state, _ = method.server_round({}, uploads, Server(0, 1))
    # The client skips round 2, in which nobody holds class 1.
    other, broadcast = method.server_round(state, [upload(1, [0], [[0.6, 0.4]], round=2)], Server(0, 2))
    assert teacher(method, client, broadcast) == ([[0.6, 0.4], [0.0, 0.0]], [True, False])
    # The same with class 0, which has another holder, and after a second round without the class.
    state, broadcast = method.server_round(state, [upload(2, [1], [[0.4, 0.6]], round=2)], Server(0, 2))
    assert teacher(method, client, broadcast) == ([[0.7, 0.3], [0.4, 0.6]], [True, True])
    state, broadcast = method.server_round(state, [upload(2, [1], [[0.3, 0.7]], round=3)], Server(0, 3))
    assert broadcast.payload["predictions"]["rounds"].tolist() == [1, 3]
    assert teacher(method, client, broadcast) == ([[0.7, 0.3], [0.3, 0.7]], [True, True])
    # All sums are of round 4.
    _, broadcast = method.server_round(state, [upload(2, [0, 1], own, round=4)], Server(0, 4))
    assert set(broadcast.payload["predictions"]) == {"sum", "holders"}
    # A client that came in later than the sum of class 1 has no part in the sum.
    client.memory["round"] = 2
    _, broadcast = method.server_round(other, [upload(1, [0], [[0.6, 0.4]], round=3)], Server(0, 3))
    assert teacher(method, client, broadcast) == ([[0.6, 0.4], [0.2, 0.8]], [True, True])


def test_the_only_holder_of_a_class_has_no_teacher_after_a_skipped_round(tiny_federation):
    # Client 0 holds classes 0 and 1, client 2 holds class 2.
    federation = tiny_federation(FDConfig())
    _, state, broadcast = federation.round(participants=(0,))
    assert teacher(federation.method, federation.clients[0], broadcast)[1] == [False, False, False]
    _, _, broadcast = federation.round(state, broadcast, participants=(2,))
    assert teacher(federation.method, federation.clients[0], broadcast)[1] == [False, False, True]
    assert teacher(federation.method, federation.clients[2], broadcast)[1] == [True, True, False]


def test_the_teacher_of_mean_logits_is_their_softmax(make_client):
    method = build(FDConfig(average="logits"), TASK)
    uploads = [upload(0, [0], [[0.0, 1.0]]), upload(1, [0], [[2 * math.log(3.0), 1.0]])]
    _, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    (first, second), held = teacher(method, make_client(), broadcast)
    assert first == pytest.approx([3 / (3 + math.e), math.e / (3 + math.e)], abs=1e-4)
    assert second == [0.5, 0.5]
    assert held == [True, False]


def test_no_teacher_before_the_first_broadcast(make_client):
    assert teacher(build(FDConfig(), TASK), make_client(), Broadcast())[1] == [False, False]


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_uploads_are_means_of_the_trained_model(tiny_federation, average):
    federation = tiny_federation(FDConfig(average=average))
    uploads, state, broadcast = federation.round()
    costs = {f"{cost}/{phase}" for cost in ("time", "cpu", "flops") for phase in ("train", "statistics")}
    assert set(uploads[0].scalars) - {"memory/train", "memory/statistics"} == {
        *costs,
        "loss/train",
        "loss/classification",
    }
    client, own = federation.clients[0], uploads[0].payload["predictions"]
    logits_NC = client.classifier.eval()(client.images.inputs(torch.arange(client.num_images)))
    values_NC = (logits_NC.softmax(dim=1) if average == "probabilities" else logits_NC).detach()
    expected_C = values_NC[client.images.labels_N == 1].mean(dim=0)
    assert own["classes"].tolist() == [0, 1]
    assert own["mean"][1].tolist() == pytest.approx(expected_C.tolist(), abs=1e-6)
    uploads, _, _ = federation.round(state, broadcast)
    scalars = uploads[0].scalars
    assert scalars["loss/train"] == pytest.approx(
        scalars["loss/classification"] + scalars["loss/soft_labels"], rel=1e-6
    )
    assert client.memory["round"] == 2


def test_without_weight_it_trains_as_local_does(make_client):
    method, client, alone = (
        build(FDConfig(distillation_weight=0.0), replace(TASK, num_classes=3)),
        make_client(),
        make_client(),
    )
    mean_CC = np.full((3, 3), 1 / 3, dtype=np.float32)
    method.client_round(client, Broadcast(1, {"predictions": {"sum": mean_CC, "holders": np.ones(3, dtype=np.int32)}}))
    alone.train()
    for weight, other in zip(client.classifier.parameters(), alone.classifier.parameters(), strict=True):
        assert torch.equal(weight, other)
