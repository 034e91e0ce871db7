import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedgh import FedGHConfig
from fedvtc.learning.server import Server

TASK = Task(num_classes=2, num_channels=1, image_size=8, feature_size=1, seed=0)
ZERO_HEAD = {"weight": np.zeros((2, 1), dtype=np.float32), "bias": np.zeros(2, dtype=np.float32)}


def make_upload(client, classes, mean):
    means = {"classes": np.array(classes), "mean": np.array(mean, dtype=np.float32)}
    return Upload(client, 1, 5, {"prototypes": means})


def test_one_step_of_the_head_by_hand():
    method = build(FedGHConfig(server_lr=0.1), TASK)
    # Probabilities 1/2 each: the gradient of both weight and bias is (-1/2, 1/2).
    server = Server(0, 4)
    state, broadcast = method.server_round({"head": ZERO_HEAD}, [make_upload(0, [0], [[1.0]])], server)
    head = broadcast.payload["head"]
    assert head["weight"].ravel().tolist() == pytest.approx([0.05, -0.05])
    assert head["bias"].tolist() == pytest.approx([0.05, -0.05])
    assert all(state["head"][name] is array for name, array in head.items())
    assert broadcast.round == 4
    assert server.scalars["loss/server/head"] == pytest.approx(0.6931, abs=1e-4)


def test_class_means_are_stepped_one_by_one_in_a_keyed_order():
    method = build(FedGHConfig(server_lr=0.1, server_batch_size=1), TASK)
    uploads = [make_upload(0, [0, 1], [[1.0], [2.0]]), make_upload(1, [0], [[3.0]])]

    def weights(round):
        _, broadcast = method.server_round({"head": ZERO_HEAD}, uploads, Server(0, round))
        return tuple(broadcast.payload["head"]["weight"].ravel().tolist())

    assert weights(1) == weights(1)
    assert len({weights(round) for round in range(1, 9)}) > 1


def test_all_clients_start_with_one_head_and_later_install_the_servers(tiny_federation):
    federation = tiny_federation(FedGHConfig(server_lr=0.5))
    method, client = federation.method, federation.clients[0]
    state, broadcast = method.start()
    uploads, _, later = federation.round(state, broadcast)
    assert not np.allclose(later.payload["head"]["weight"], broadcast.payload["head"]["weight"], atol=1e-3)
    before = client.classifier.head.weight.detach().clone()
    for sent in (broadcast, later):
        method.receive(client, sent)
        assert np.array_equal(client.classifier.head.weight.detach().numpy(), sent.payload["head"]["weight"])
        assert np.array_equal(client.classifier.head.bias.detach().numpy(), sent.payload["head"]["bias"])
    # Local training had changed the head, and nothing of a head is uploaded.
    assert not torch.equal(before, torch.tensor(broadcast.payload["head"]["weight"]))
    assert set(uploads[0].payload) == {"prototypes"}
    assert np.allclose(uploads[0].payload["prototypes"]["mean"], client.statistics("scalar").mean_KD, atol=1e-6)
