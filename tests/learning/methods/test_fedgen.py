import numpy as np
import pytest
import torch
from torch.nn import functional

from fedvtc.config.schema import TrainingConfig
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build, fedgen
from fedvtc.learning.methods.fedgen import FedGenConfig
from fedvtc.learning.models.weights import load_weights
from fedvtc.learning.server import Server

TASK = Task(num_classes=2, num_channels=1, image_size=8, feature_size=3, seed=0)


def make_upload(client, counts, head=None, seed=0):
    rng = np.random.default_rng(seed + client)
    head = head or {name: rng.normal(size=shape) for name, shape in (("weight", (2, 3)), ("bias", (2,)))}
    head = {name: array.astype(np.float32) for name, array in head.items()}
    labels = {"count": np.array(counts, dtype=np.int32)}
    return Upload(client, 1, sum(counts), {"head": head, "labels": labels})


def small(**keys):
    return FedGenConfig(**({"noise_size": 4, "hidden_size": 8, "server_steps": 5, "server_batch_size": 6} | keys))


def test_heads_are_averaged_by_images_and_the_mix_by_clients():
    method = build(small(), TASK)
    uploads = [make_upload(0, [3, 1]), make_upload(1, [0, 12])]
    _, broadcast = method.server_round({}, uploads, Server(0, 1))
    first, second = (upload.payload["head"]["bias"] for upload in uploads)
    assert broadcast.payload["head"]["bias"] == pytest.approx((4 * first + 12 * second) / 16, abs=1e-6)
    # The mean of (3/4, 1/4) and (0, 1).
    assert broadcast.payload["labels"]["mix"].tolist() == [0.375, 0.625]
    assert broadcast.payload["labels"]["mix"].dtype == np.float32


def test_the_mix_has_every_client_so_far_and_the_generator_learns_classes_with_a_teacher(monkeypatch):
    method, first = build(small(), TASK), [make_upload(0, [4, 0]), make_upload(1, [3, 9])]
    state, _ = method.server_round({}, first, Server(0, 1))
    drawn, draws = [], fedgen.FedGen._draws

    def watched(self, generator, mix_C):
        for noise_BL, labels_B in draws(self, generator, mix_C):
            drawn.extend(labels_B.tolist())
            yield noise_BL, labels_B

    monkeypatch.setattr(fedgen.FedGen, "_draws", watched)
    state, broadcast = method.server_round(state, first[:1], Server(0, 2))
    # The mean of (1, 0) and (1/4, 3/4), though client 1 sits out.
    assert broadcast.payload["labels"]["mix"].tolist() == [0.625, 0.375]
    assert set(drawn) == {0}
    method.server_round(state, first[1:], Server(0, 3))
    assert set(drawn) == {0, 1}


def test_the_trained_generator_is_stored_and_sent_and_keeps_its_optimizer():
    method, uploads = build(small(), TASK), [make_upload(0, [3, 1]), make_upload(1, [1, 3])]
    server = Server(0, 1)
    state, broadcast = method.server_round({}, uploads, server)
    start = {name: weight.numpy() for name, weight in method._new_generator().state_dict().items()}
    for name, weight in broadcast.payload["generator"].items():
        assert np.array_equal(weight, state["generator"][name])
        assert not np.array_equal(weight, start[name])
    assert state["optimizer"]["0/step"] == 5
    assert server.scalars.keys() - {"memory/server/generator"} == {
        f"{what}/server/generator" for what in ("loss", "time", "cpu", "flops")
    }
    later, _ = method.server_round(state, uploads, Server(0, 2))
    assert later["optimizer"]["0/step"] == 10


@pytest.mark.parametrize("ensemble", ["labels", "logits"])
def test_the_generator_learns_features_that_the_heads_classify(ensemble):
    method = build(small(ensemble=ensemble, server_steps=60, server_lr=0.02), TASK)
    # Both heads tell the classes apart by the first feature.
    head = {"weight": np.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]]), "bias": np.zeros(2)}
    state, _ = method.server_round({}, [make_upload(k, [2, 2], head) for k in range(2)], Server(0, 1))
    generator, labels_B = method._new_generator(), torch.tensor([0, 1]).repeat(20)
    load_weights(generator, state["generator"])
    with torch.no_grad():
        features_BD = generator(generator.draw_noise(40), labels_B)
    assert ((features_BD[:, 0] < 0).long() == labels_B).float().mean() > 0.9


def test_the_loss_of_the_generator_is_the_teachers_and_the_diversity():
    method = build(small(diversity=0.5), TASK)
    loss = method._generator_loss(
        lambda noise_BL, labels_B: noise_BL, torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.ones(1, 2)
    )
    terms = loss(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1]))
    # Two of four pairs have MSE 1 and mean difference 1.
    assert terms["teacher"].item() == pytest.approx(np.log(2), abs=1e-6)
    assert terms["diversity"].item() == pytest.approx(np.exp(-0.5), abs=1e-6)
    assert terms["loss"].item() == pytest.approx(np.log(2) + 0.5 * np.exp(-0.5), abs=1e-6)


def test_the_first_round_has_no_generated_terms(tiny_federation):
    federation = tiny_federation(small())
    state, broadcast = federation.method.start()
    uploads, state, broadcast = federation.round(state, broadcast)
    assert {name for name in uploads[0].scalars if name.startswith("loss/")} == {"loss/train", "loss/classification"}
    for client, upload in zip(federation.clients, uploads, strict=True):
        assert np.array_equal(upload.payload["head"]["weight"], client.classifier.head.weight.detach().numpy())
        assert upload.payload["labels"]["count"].sum() == client.num_images
    assert uploads[2].payload["labels"]["count"].tolist() == [0, 0, 3]
    scalars = federation.round(state, broadcast)[0][0].scalars
    weight = 10 * 0.98**2
    whole = scalars["loss/classification"] + weight * (scalars["loss/generated"] + scalars["loss/distillation"])
    assert scalars["loss/train"] == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("terms", ["code", "paper"])
def test_generated_features_train_the_head_alone_and_the_teacher_gets_no_gradient(tiny_federation, terms):
    federation = tiny_federation(small(terms=terms))
    state, broadcast = federation.method.start()
    _, _, broadcast = federation.round(state, broadcast)
    client = federation.clients[0]
    client.begin_round(2)
    classifier = client.classifier.train()
    images, labels_B = client.images.inputs(), client.images.labels_N
    torch.manual_seed(0)
    found = federation.method._loss(client, broadcast)(images, labels_B)
    assert found.keys() == {"loss", "classification", "generated"} | ({"distillation"} if terms == "code" else set())
    slopes = torch.autograd.grad(
        found["generated"], list(classifier.parameters()), retain_graph=True, allow_unused=True
    )
    touched = {
        name for (name, _), slope in zip(classifier.named_parameters(), slopes, strict=True) if slope is not None
    }
    assert touched == {"head.weight", "head.bias"}
    if terms == "code":
        # With a constant teacher t the gradient of KL(t || softmax z) by z is softmax z - t.
        torch.manual_seed(0)
        generator = federation.method._new_generator()
        load_weights(generator, broadcast.payload["generator"])
        torch.multinomial(torch.tensor(broadcast.payload["labels"]["mix"]), len(labels_B), replacement=True)
        generator.draw_noise(len(labels_B))
        teacher_BC = classifier.head(generator(generator.draw_noise(len(labels_B)), labels_B)).softmax(dim=1).detach()
        logits_BC = classifier(images)
        expected = functional.kl_div(logits_BC.log_softmax(dim=1), teacher_BC, reduction="batchmean")
        assert found["distillation"].item() == pytest.approx(expected.item(), rel=1e-5)
        (expected_BC,) = torch.autograd.grad(expected, classifier.head.bias)
        (slope_BC,) = torch.autograd.grad(found["distillation"], classifier.head.bias, retain_graph=True)
        assert torch.allclose(slope_BC, expected_BC, atol=1e-6)


def test_late_epochs_of_a_round_have_no_generated_terms(tiny_federation, monkeypatch):
    monkeypatch.setattr(fedgen, "_GUIDED_PASSES", 1)
    federation = tiny_federation(small(), training=TrainingConfig(epochs=2, batch_size=16))
    _, broadcast = federation.method.start()
    _, _, broadcast = federation.round({}, broadcast, participants=(2,))
    scalars = federation.upload(2, broadcast).scalars
    # The record has the losses of the last epoch, which has cross-entropy alone.
    assert scalars["loss/train"] == scalars["loss/classification"]
    assert "loss/generated" in scalars


def test_clients_receive_the_mean_head(tiny_federation):
    federation = tiny_federation(small())
    state, broadcast = federation.method.start()
    _, _, broadcast = federation.round(state, broadcast)
    client = federation.clients[1]
    federation.method.receive(client, broadcast)
    assert np.array_equal(client.classifier.head.weight.detach().numpy(), broadcast.payload["head"]["weight"])
