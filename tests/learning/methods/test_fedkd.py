import math

import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods.fedkd import FedKDConfig, adaptive_terms
from fedvtc.learning.models.proxy import PairOutputs
from fedvtc.learning.models.weights import weights_of

CONFIG = FedKDConfig(proxy="cnn_2x8")


def test_the_losses_by_hand():
    z_BC = torch.zeros(1, 2, requires_grad=True)
    u_BC = torch.tensor([[math.log(3.0), 0.0]], requires_grad=True)
    features_BD = torch.tensor([[1.0, 3.0]], requires_grad=True)
    projected_BD = torch.zeros(1, 2, requires_grad=True)
    outputs = PairOutputs(features_BD, z_BC, projected_BD, u_BC)
    terms = adaptive_terms(outputs, projected_BD, torch.tensor([0]))
    # s = ln 2 + ln (4 / 3)
    assert terms["mutual"].item() == pytest.approx(0.1308, abs=1e-4)
    assert terms["proxy_mutual"].item() == pytest.approx(0.1438, abs=1e-4)
    assert terms["hidden"].item() == pytest.approx(5.0)
    # 0.1334 is the mutual term in the loss.
    whole = 0.9808 + 0.1334 + (0.1438 + 2 * 5.0) / 0.9808
    assert terms["loss"].item() == pytest.approx(whole, abs=1e-3)
    terms["loss"].backward()
    # The divisor has no gradient: softmax z - y + (softmax z - softmax u) / s.
    assert z_BC.grad[0, 0].item() == pytest.approx(-0.5 - 0.25 / 0.9808, abs=1e-4)
    assert features_BD.grad[0].tolist() == pytest.approx([1.0 / 0.9808, 3.0 / 0.9808], abs=1e-4)
    assert (features_BD.grad == -projected_BD.grad).all()


CERTAIN_BC = torch.tensor([[200.0, 0.0]])
"""Logits whose cross-entropy with class 0 is 0."""


def test_imitation_of_certain_models_weighs_ten():
    features_BD = torch.tensor([[1.0, 3.0]], requires_grad=True)
    projected_BD = torch.zeros(1, 2, requires_grad=True)
    outputs = PairOutputs(features_BD, CERTAIN_BC, projected_BD, CERTAIN_BC)
    terms = adaptive_terms(outputs, projected_BD, torch.tensor([0]))
    assert terms["classification"].item() == terms["proxy_classification"].item() == 0.0
    assert terms["hidden"].item() == pytest.approx(5.0)
    assert terms["loss"].item() == pytest.approx(10 * (5.0 + 5.0))
    terms["loss"].backward()
    assert features_BD.grad[0].tolist() == pytest.approx([10.0, 30.0])
    assert projected_BD.grad[0].tolist() == pytest.approx([-10.0, -30.0])


def test_the_projection_learns_the_features_of_certain_models_with_the_usual_sgd():
    """With a weight of a million, 30 steps overflow."""
    # As the backbones compute features: of mean square 1.
    features_BD, proxy_features_BD = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    outputs = PairOutputs(features_BD, CERTAIN_BC, proxy_features_BD, CERTAIN_BC)
    weight_DD = torch.zeros(2, 2, requires_grad=True)
    optimizer, hidden = torch.optim.SGD([weight_DD], lr=0.01, momentum=0.9), []
    for _ in range(60):
        optimizer.zero_grad()
        terms = adaptive_terms(outputs, proxy_features_BD @ weight_DD.T, torch.tensor([0]))
        terms["loss"].backward()
        optimizer.step()
        hidden.append(terms["hidden"].item())
    assert max(hidden) == hidden[0] == pytest.approx(1.0)
    assert hidden[-1] < 0.01
    assert weight_DD.abs().max().item() < 1.0


def test_clients_and_server_hold_the_same_mentee(tiny_federation):
    federation = tiny_federation(CONFIG)
    method, state, broadcast = federation.method, None, None
    for round in (1, 2):
        uploads, state, broadcast = federation.round(state, broadcast)
        assert not broadcast.payload["proxy"]
        for client in federation.clients:
            method.receive(client, broadcast)
            method.receive(client, broadcast)
            own = weights_of(method.proxy_of(client))
            assert all(np.array_equal(own[name], weight) for name, weight in state["proxy"].items()), round
    assert set(uploads[0].payload) == {"update"}


def test_a_client_that_missed_a_round_receives_the_whole_mentee(tiny_federation):
    federation = tiny_federation(CONFIG)
    _, state, broadcast = federation.round()
    _, state, broadcast = federation.round(state, broadcast, participants=(0, 2))
    assert broadcast.payload["update"] == {}
    _, state, broadcast = federation.round(state, broadcast)
    assert broadcast.payload["proxy"] == {}
    for client in federation.clients:
        federation.method.receive(client, broadcast)
        own = weights_of(federation.method.proxy_of(client))
        assert all(np.array_equal(own[name], weight) for name, weight in state["proxy"].items())


def test_an_update_is_the_change_of_the_trained_mentee(tiny_federation):
    federation = tiny_federation(FedKDConfig(proxy="cnn_2x8", first_energy=1.0, last_energy=1.0))
    client = federation.clients[0]
    start = weights_of(federation.method.proxy_of(client))
    update = federation.upload(0, Broadcast()).payload["update"]
    trained = weights_of(federation.method.proxy_of(client))
    assert np.array_equal(update["head.bias"], trained["head.bias"] - start["head.bias"])
    assert np.abs(update["head.bias"]).sum() > 0
    assert np.array_equal(client.memory["base/head.bias"], start["head.bias"])


def test_the_energy_grows_from_the_first_to_the_last_round(tiny_federation):
    method = tiny_federation(CONFIG).method
    assert [method._energy(round) for round in (0, 5, 10, 20)] == pytest.approx([0.95, 0.965, 0.98, 0.98])
