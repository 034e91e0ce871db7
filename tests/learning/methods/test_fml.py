import math

import numpy as np
import pytest
import torch

from fedvtc.config.schema import Config
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fml import FMLConfig, mutual_terms
from fedvtc.learning.server import Server


def test_the_losses_by_hand():
    z_BC = torch.zeros(1, 2, requires_grad=True)
    u_BC = torch.tensor([[math.log(3.0), 0.0]], requires_grad=True)
    terms = mutual_terms(z_BC, u_BC, torch.tensor([0]), alpha=0.5, beta=0.5)
    assert terms["mutual"].item() == pytest.approx(0.1308, abs=1e-4)
    assert terms["proxy_mutual"].item() == pytest.approx(0.1438, abs=1e-4)
    assert terms["loss"].item() == pytest.approx(0.4120 + 0.2158, abs=1e-4)
    private = mutual_terms(z_BC, u_BC, torch.tensor([0]), alpha=1.0, beta=0.0)
    assert private["loss"].item() == pytest.approx(math.log(2.0) + 0.1438, abs=1e-4)
    terms["mutual"].backward()
    assert z_BC.grad[0].tolist() == pytest.approx([-0.25, 0.25])
    assert u_BC.grad is None


def test_the_mean_proxy_weighs_clients_by_images():
    method = build(FMLConfig(), Task(num_classes=2, num_channels=1, image_size=8, feature_size=2, seed=0))
    proxies = [(20, [0.0, 4.0]), (10, [3.0, 1.0])]
    uploads = [
        Upload(client, 4, num_images, {"proxy": {"bias": np.array(bias)}})
        for client, (num_images, bias) in enumerate(proxies)
    ]
    _, broadcast = method.server_round({}, iter(uploads), Server(0, 4))
    assert broadcast.round == 4
    assert broadcast.payload["proxy"]["bias"].tolist() == [1.0, 3.0]


def test_clients_train_both_models_and_receive_the_mean_proxy(tiny_federation):
    federation = tiny_federation(FMLConfig(proxy="cnn_2x8"))
    client, method = federation.clients[0], federation.method
    proxies = [method.proxy_of(client).state_dict() for client in federation.clients]
    assert all(torch.equal(proxies[0][name], proxies[1][name]) for name in proxies[0])
    before = {name: weight.clone() for name, weight in client.classifier.state_dict().items()}
    start = {name: weight.clone() for name, weight in proxies[0].items()}
    uploads, _, broadcast = federation.round()
    assert set(uploads[0].scalars) - {"memory/train"} == {
        "time/train",
        "cpu/train",
        "flops/train",
        *(f"loss/{name}" for name in ("train", "classification", "mutual", "proxy_classification", "proxy_mutual")),
    }
    sent, own = uploads[0].payload["proxy"], method.proxy_of(client).state_dict()
    assert all(np.array_equal(sent[name], weight.numpy()) for name, weight in own.items())
    assert not torch.equal(own["head.weight"], start["head.weight"])
    assert not torch.equal(client.classifier.head.weight, before["head.weight"])
    method.receive(client, broadcast)
    predictors = method.predictors(client, broadcast)
    assert list(predictors) == ["private", "proxy"]
    assert predictors["private"] is client.classifier
    assert np.array_equal(predictors["proxy"].head.weight.detach().numpy(), broadcast.payload["proxy"]["head.weight"])


def test_a_proxy_that_is_no_backbone_is_refused(golden, keys_of):
    (problem,) = FMLConfig(proxy="cnn_2x61").problems(Config())
    assert keys_of(problem) == ["proxy"]
    golden(problem)
