from dataclasses import replace

import numpy as np
import pytest
import torch

from fedvtc.config.schema import TrainingConfig
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedtype import FedTypeConfig, private_loss, proxy_loss
from fedvtc.learning.models.backbones import flops_of_image
from fedvtc.learning.models.conformal import LabelSets
from fedvtc.learning.server import Server

TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=2, seed=0)
CONFIG = FedTypeConfig(proxy="cnn_2x8")


class Fixed(torch.nn.Module):
    """A model with the same logits for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits_C = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits_C.expand(len(images), -1)


def test_the_private_model_learns_the_order_of_the_proxys_sets_by_hand():
    # The sets: {0, 2} of the proxy, {1, 2} of the private model; agreement 1 / 3.
    proxy, private = Fixed(5.0, 0.0, 5.0), Fixed(0.0, 3.0, 1.0)
    sets = LabelSets(temperature=1.0, threshold=0.96, penalty=0.0, free_labels=3)
    with torch.random.fork_rng():
        # The last label of a set is dropped at random: with this seed from the private model's sets alone.
        torch.manual_seed(0)
        terms = private_loss(private, proxy, sets, sets)(torch.zeros(2, 1, 8, 8), torch.tensor([0, 2]))
    assert terms["ranking"].item() == pytest.approx(2.5)
    assert (terms["loss"] - terms["classification"]).item() == pytest.approx(2.5 / 3)
    terms["ranking"].backward()
    assert private.logits_C.grad.tolist() == pytest.approx([-0.5, 1.0, -0.5])
    assert proxy.logits_C.grad is None


def test_the_proxy_learns_the_private_models_predictions_by_hand():
    private, proxy = Fixed(0.0, 0.0), Fixed(np.log(3.0), 0.0)
    loss = proxy_loss(proxy, private, 4.0)(torch.zeros(2, 1, 8, 8), torch.tensor([0, 0]))
    z, u = torch.tensor([0.5, 0.5]), torch.tensor([np.log(3.0) / 4, 0.0]).softmax(dim=0)
    assert loss.item() == pytest.approx(-np.log(0.75) + 16 * (z * (z / u).log()).sum().item(), abs=1e-5)
    loss.backward()
    assert private.logits_C.grad is None
    assert proxy.logits_C.grad.abs().sum() > 0


@pytest.mark.parametrize(("aggregation", "expected"), [("clients", [1.5, 2.5]), ("images", [1.0, 3.0])])
def test_proxies_are_averaged_over_clients_or_images(aggregation, expected):
    method = build(FedTypeConfig(aggregation=aggregation), TASK)
    proxies = [(20, [0.0, 4.0]), (10, [3.0, 1.0])]
    uploads = [Upload(0, 1, num_images, {"proxy": {"bias": np.array(bias)}}) for num_images, bias in proxies]
    _, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.payload["proxy"]["bias"].tolist() == expected


def test_the_proxys_penalty_grows_with_the_fall_of_the_accuracy(make_client):
    method, client = build(CONFIG, TASK), make_client(method=CONFIG)
    client.memory["accuracy"] = 0.0
    assert method._next_penalty(client) == 0.5
    accuracy = client.memory["accuracy"]
    client.memory["accuracy"] = accuracy + 0.2
    assert method._next_penalty(client) == pytest.approx(0.5 + 0.5 * 0.2)
    assert client.memory["accuracy"] == accuracy


def test_a_round_trains_both_models_with_other_batches_in_each_epoch(make_client, monkeypatch):
    method = build(CONFIG, replace(TASK, feature_size=6, batch_size=4))
    client, orders = make_client(method=CONFIG, training=TrainingConfig(epochs=2, batch_size=4)), []
    start = client.modules["proxy"].head.bias.detach().clone()
    in_batches = type(client.images).in_batches

    def watched(images, index_batches):
        batches = list(index_batches)
        orders.extend(batch.tolist() for batch in batches)
        return in_batches(images, batches)

    monkeypatch.setattr(type(client.images), "in_batches", watched)
    upload = method.client_round(client, Broadcast())
    scalars = {"classification", "ranking", "train", "proxy"}
    assert {name for name in upload.scalars if name.startswith("loss/")} == {f"loss/{name}" for name in scalars}
    assert set(client.memory) == {"accuracy", "penalty"}
    first_batches = [order for order in orders if len(order) == 4]
    # Two models, two epochs, two whole batches in each.
    assert len(first_batches) == len({tuple(order) for order in first_batches}) == 8
    assert not np.array_equal(upload.payload["proxy"]["head.bias"], start)


def test_the_calibration_counts_one_pass_of_each_architecture(make_client):
    config = FedTypeConfig(proxy="cnn_3x16")
    method, client = build(config, replace(TASK, feature_size=6, batch_size=4)), make_client(method=config)
    upload = method.client_round(client, Broadcast())
    sizes = {"num_channels": 1, "image_size": 8, "feature_size": 6}
    private, proxy = (flops_of_image(name, **sizes) for name in (client.backbone_name, "cnn_3x16"))
    # Each head maps 6 features to 3 logits; 10 images.
    assert upload.scalars["flops/calibrate"] == 10 * (private + proxy + 2 * 2 * 6 * 3)
    assert private != proxy
