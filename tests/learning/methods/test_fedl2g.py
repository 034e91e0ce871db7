import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedvtc.config.schema import RunConfig, TrainingConfig
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build, fedl2g
from fedvtc.learning.methods.fedl2g import FedL2GConfig
from fedvtc.learning.models import lookahead
from fedvtc.learning.models.lookahead import target_gradients
from fedvtc.learning.server import Server

TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0)


def make_upload(client, classes, gradient):
    gradients = {"classes": np.array(classes), "gradient": np.array(gradient, dtype=np.float32)}
    return Upload(client, 1, 5, {"gradients": gradients})


def test_the_server_steps_on_the_mean_of_the_senders():
    method = build(FedL2GConfig(server_lr=0.5), TASK)
    state = {"targets": {"mean": np.ones((3, 3), dtype=np.float32)}}
    uploads = [make_upload(0, [0, 2], [[2.0, 0, 0], [0, 4.0, 0]]), make_upload(1, [0], [[0, 0, 6.0]])]
    state, broadcast = method.server_round(state, uploads, Server(0, 3))
    assert state["targets"]["mean"].tolist() == [[0.5, 1.0, -0.5], [1.0, 1.0, 1.0], [1.0, -1.0, 1.0]]
    assert state["targets"]["mean"].dtype == np.float32
    assert (broadcast.round, broadcast.payload) == (3, state)


def test_a_large_gradient_is_scaled_down_to_100():
    method = build(FedL2GConfig(server_lr=1.0), TASK)
    state = {"targets": {"mean": np.zeros((3, 3), dtype=np.float32)}}
    state, _ = method.server_round(state, [make_upload(0, [1], [[300.0, 400.0, 0.0]])], Server(0, 1))
    assert state["targets"]["mean"][1].tolist() == pytest.approx([-60.0, -80.0, 0.0])


@pytest.mark.parametrize(("target", "size", "rate"), [("logits", 3, 0.1), ("features", 6, 100.0)])
def test_targets_start_as_standard_normal_of_the_guided_size(target, size, rate):
    method = build(FedL2GConfig(target=target), TASK)
    state, broadcast = method.start()
    assert broadcast.payload["targets"]["mean"].shape == (3, size)
    assert 0.3 < broadcast.payload["targets"]["mean"].std() < 2
    moved, _ = method.server_round(state, [make_upload(0, [0], [[0.01] * size])], Server(0, 1))
    shift_CD = state["targets"]["mean"] - moved["targets"]["mean"]
    assert shift_CD[0] == pytest.approx([0.01 * rate] * size, abs=1e-6)
    assert not shift_CD[1:].any()


@pytest.mark.parametrize(
    ("warm_up", "num_rounds", "expected"), [(0.29, 100, 29), (0.1, 10, 1), (0.1, 19, 1), (0, 5, 0)]
)
def test_warm_up_is_a_decimal_share_of_the_rounds_rounded_down(warm_up, num_rounds, expected):
    assert FedL2GConfig(warm_up=warm_up).warm_up_rounds(num_rounds) == expected


@pytest.mark.parametrize("target", ["logits", "features"])
def test_clients_measure_in_the_warm_up_and_train_afterwards(tiny_federation, target):
    federation = tiny_federation(FedL2GConfig(target=target, warm_up=0.5), run=RunConfig(rounds=2))
    before = [client.weights_digest() for client in federation.clients]
    state, broadcast = federation.method.start()
    uploads, state, broadcast = federation.round(state, broadcast)
    assert [client.weights_digest() for client in federation.clients] == before
    assert {name for name in uploads[0].scalars if name.startswith("loss/")} == {"loss/quiz"}
    for upload in uploads:
        gradients = upload.payload["gradients"]
        assert gradients["gradient"].shape == (len(gradients["classes"]), {"logits": 3, "features": 6}[target])
        assert np.abs(gradients["gradient"]).max() > 0
    uploads, _, _ = federation.round(state, broadcast)
    assert not set(before) & {client.weights_digest() for client in federation.clients}
    scalars = uploads[0].scalars
    whole = scalars["loss/classification"] + scalars["loss/target"]
    assert scalars["loss/train"] == pytest.approx(whole, rel=1e-6)


def test_gradients_of_images_are_summed_by_class():
    gradient_BD = np.array([[1, 2], [10, 20], [100, 200], [1000, 2000]], dtype=np.float32)
    found = fedl2g._by_class(gradient_BD, np.array([4, 0, 4, 2]))
    assert found["classes"].tolist() == [0, 2, 4]
    assert found["gradient"].tolist() == [[10, 20], [1000, 2000], [101, 202]]
    assert found["gradient"].dtype == np.float32


def test_an_upload_has_the_gradient_of_the_quiz_by_the_targets(tiny_federation, monkeypatch):
    federation = tiny_federation(FedL2GConfig(warm_up=0.5), run=RunConfig(rounds=2))
    batches = []

    def gradients(outputs, weights, study, quiz, targets_CD, *, lr):
        batches.append((study, quiz))
        return target_gradients(outputs, weights, study, quiz, targets_CD, lr=lr)

    monkeypatch.setattr(lookahead, "target_gradients", gradients)
    upload, client = federation.upload(1, federation.method.start()[1]), federation.clients[1]
    study, quiz = batches[0]
    targets_CD = torch.tensor(federation.method.start()[1].payload["targets"]["mean"], requires_grad=True)
    weights, model = dict(client.classifier.named_parameters()), client.classifier.eval()
    logits_BC = model(study[0])
    loss = functional.cross_entropy(logits_BC, study[1]) + (logits_BC - targets_CD[study[1]]).square().mean()
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    lr = federation.method.task.optimizer.lr
    stepped = {name: weight - lr * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)}
    (expected_CD,) = torch.autograd.grad(
        functional.cross_entropy(functional_call(model, stepped, (quiz[0],)), quiz[1]), targets_CD
    )
    found = upload.payload["gradients"]
    assert found["classes"].tolist() == sorted(set(study[1].tolist()))
    assert len(study[1]) > len(found["classes"])
    assert found["gradient"] == pytest.approx(expected_CD[found["classes"]].numpy(), rel=1e-3, abs=1e-8)


def test_the_quiz_is_held_out_in_every_round(make_client, tiny_federation):
    federation = tiny_federation(FedL2GConfig(), training=TrainingConfig(epochs=1, batch_size=4))
    method, client = federation.method, federation.clients[0]
    study_N, quiz_N = method._split(client)
    assert (len(study_N), len(quiz_N)) == (6, 4)
    assert sorted([*study_N.tolist(), *quiz_N.tolist()]) == list(range(10))
    client.begin_round(5)
    assert method._split(client)[1].tolist() == quiz_N.tolist()
    with client.phase("train"):
        (batches,) = client.index_passes(len(study_N))
        seen = [labels_B.tolist() for _, labels_B in fedl2g._batches(client, study_N, batches)]
    assert sorted(label for labels in seen for label in labels) == sorted(client.images.labels_N[study_N].tolist())
    # Three images are fewer than two batches of four.
    small = federation.clients[2]
    assert [part.tolist() for part in method._split(small)] == [[0, 1, 2], [0, 1, 2]]
