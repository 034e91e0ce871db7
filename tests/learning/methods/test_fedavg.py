import numpy as np
import pytest
import torch

from fedvtc.config.schema import BackboneShare, PopulationConfig
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedavg import FedAvgConfig, squared_distance
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

MIXED = PopulationConfig(3, [BackboneShare("cnn_2x8", 0.5), BackboneShare("cnn_2x16", 0.5)], feature_size=6)


TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0)


def make_upload(backbone, num_images, weight, round=1):
    return Upload(0, round, num_images, {"model": {"w": np.array(weight, np.float32)}}, backbone=backbone)


def test_one_mean_over_images_by_hand():
    method = build(FedAvgConfig(), TASK)
    uploads = [make_upload("a", 30, [0.0, 4.0]), make_upload("b", 10, [4.0, 8.0])]
    state, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.payload["model"]["w"].tolist() == [1.0, 5.0]
    assert broadcast.round == 1
    assert state["models"].keys() == {"all"}


def test_means_of_architectures_touch_no_other_architecture():
    method = build(FedAvgConfig(groups="architecture"), TASK)
    uploads = [make_upload("a", 30, [0.0]), make_upload("b", 10, [7.0, 7.0]), make_upload("a", 10, [4.0])]
    state, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.payload == {}
    assert {name: group["model"]["w"].tolist() for name, group in broadcast.groups.items()} == {
        "a": [1.0],
        "b": [7.0, 7.0],
    }
    # An architecture without a participant keeps its last mean.
    _, broadcast = method.server_round(state, iter([make_upload("b", 10, [9.0, 9.0], round=2)]), Server(0, 2))
    assert {name: group["model"]["w"].tolist() for name, group in broadcast.groups.items()} == {
        "a": [1.0],
        "b": [9.0, 9.0],
    }


def test_the_proximal_term_and_its_gradient_by_hand():
    weights = [torch.tensor([3.0], requires_grad=True), torch.zeros(2, requires_grad=True)]
    loss = 0.5 * 0.1 * squared_distance(weights, [torch.tensor([1.0]), torch.zeros(2)])
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert weights[0].grad.item() == pytest.approx(0.2)
    assert weights[1].grad.tolist() == [0.0, 0.0]


def test_clients_of_a_backbone_start_equal_and_others_do_not(make_client):
    config = FedAvgConfig(groups="architecture")
    digests = [weights_digest(make_client(number, method=config).classifier) for number in range(3)]
    assert len(set(digests)) == 1
    alone = make_client(0)
    assert weights_digest(alone.classifier) not in digests


def test_a_client_trains_the_model_of_the_broadcast_and_uploads_the_trained_one(tiny_federation):
    federation = tiny_federation(FedAvgConfig())
    _, _, broadcast = federation.round()
    client = federation.clients[0]
    federation.method.receive(client, broadcast)
    received = weights_of(client.classifier)
    for name, weight in received.items():
        assert np.array_equal(weight, broadcast.payload["model"][name])
    upload = federation.upload(0, broadcast)
    assert all(np.array_equal(upload.payload["model"][name], weights_of(client.classifier)[name]) for name in received)
    assert any(not np.array_equal(upload.payload["model"][name], received[name]) for name in received)
    # The optimizer is a new one in each round.
    assert client.state_dict()["classifier"]["optimizer"]["state"] == {}


def test_a_proximal_weight_of_zero_is_fedavg_and_a_large_one_holds_the_weights(tiny_federation):
    digests, distances = {}, {}
    for mu in (None, 0.0, 1.0, 100.0):
        federation = tiny_federation(FedAvgConfig() if mu is None else FedAvgConfig(prox_mu=mu))
        before = [weight.detach().clone() for weight in federation.clients[0].classifier.parameters()]
        upload = federation.upload(0, Broadcast())
        classifier = federation.clients[0].classifier
        digests[mu] = weights_digest(classifier)
        distances[mu] = squared_distance(classifier.parameters(), before).item()
        assert ("loss/proximal" in upload.scalars) == bool(mu)
    assert digests[None] == digests[0.0] != digests[1.0]
    assert distances[100.0] < distances[1.0] < distances[0.0]


def test_mixed_backbones_are_refused_in_one_line(tiny_config, golden, keys_of):
    (problem,) = FedAvgConfig().problems(tiny_config(FedAvgConfig(), population=MIXED))
    assert keys_of(problem) == ["name"]
    golden(problem)
    config = FedAvgConfig(groups="architecture")
    assert config.problems(tiny_config(config, population=MIXED)) == []
