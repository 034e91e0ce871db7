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
    assert terms["mutual"].item() == pytest.approx(0.1308 / 0.9808, abs=1e-4)
    assert terms["mutual"].item() == pytest.approx(0.1334, abs=1e-4)
    assert terms["proxy_mutual"].item() == pytest.approx(0.1438 / 0.9808, abs=1e-4)
    assert terms["hidden"].item() == pytest.approx(5.0 / 0.9808, abs=1e-3)
    whole = 0.9808 + (0.1308 + 0.1438 + 2 * 5.0) / 0.9808
    assert terms["loss"].item() == pytest.approx(whole, abs=1e-3)
    terms["loss"].backward()
    # The divisor has no gradient: softmax z - y + (softmax z - softmax u) / s.
    assert z_BC.grad[0, 0].item() == pytest.approx(-0.5 - 0.25 / 0.9808, abs=1e-4)
    assert features_BD.grad[0].tolist() == pytest.approx([1.0 / 0.9808, 3.0 / 0.9808], abs=1e-4)
    assert (features_BD.grad == -projected_BD.grad).all()


def test_certain_models_have_finite_losses():
    logits_BC = torch.tensor([[200.0, 0.0]])
    features_BD = torch.ones(1, 2)
    terms = adaptive_terms(PairOutputs(features_BD, logits_BC, features_BD, logits_BC), features_BD, torch.tensor([0]))
    assert terms["loss"].item() == pytest.approx(0.0, abs=1e-5)


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
