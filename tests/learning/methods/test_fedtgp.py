import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedtgp import FedTGPConfig, largest_distance
from fedvtc.learning.models.weights import load_weights
from fedvtc.learning.server import Server

TASK = Task(num_classes=4, num_channels=1, image_size=8, feature_size=2, seed=0)


def make_upload(client, classes, mean):
    means = {"classes": np.array(classes), "mean": np.array(mean, dtype=np.float32)}
    return Upload(client, 1, 5, {"prototypes": means})


@pytest.mark.parametrize(("nearest", "expected"), [(False, 5.0), (True, 4.0)])
def test_the_margin_is_a_distance_of_class_centers_by_hand(nearest, expected):
    # The centers are plain means over clients: 0, 1 and 5.
    means_ND = np.array([[-1.0], [1.0], [5.0], [1.0]], dtype=np.float32)
    assert largest_distance(means_ND, np.array([0, 1, 2, 0]), nearest=nearest) == expected
    assert largest_distance(means_ND[:1], np.array([0]), nearest=nearest) == 0.0


def test_the_trained_prototypes_are_stored_and_sent():
    method = build(FedTGPConfig(server_epochs=3), TASK)
    uploads = [make_upload(0, [0, 2], [[1.0, -1.0], [-1.0, 1.0]]), make_upload(1, [2], [[-0.8, 0.9]])]
    server = Server(0, 1)
    state, broadcast = method.server_round({}, uploads, server)

    net = method._new_net()
    with torch.no_grad():
        untrained_CD = net()
        load_weights(net, state["prototype_net"])
        trained_CD = net()
    sent = broadcast.payload["prototypes"]
    assert sent["classes"].tolist() == [0, 2]
    assert np.array_equal(sent["mean"], trained_CD[[0, 2]].numpy())
    assert not torch.allclose(trained_CD, untrained_CD, atol=1e-3)
    assert server.scalars.keys() - {"memory/server/prototypes"} == {
        f"{what}/server/prototypes" for what in ("loss", "time", "cpu", "flops")
    }


def test_training_separates_prototypes_and_pulls_them_to_their_class():
    method = build(FedTGPConfig(), TASK)
    uploads = [make_upload(k, [0, 1], [[1.0, -1.0], [-1.0, 1.0]]) for k in range(3)]
    _, broadcast = method.server_round({}, uploads, Server(0, 1))
    mean_KD = broadcast.payload["prototypes"]["mean"]
    for row, own in enumerate(([1.0, -1.0], [-1.0, 1.0])):
        distance_K = np.linalg.norm(mean_KD - np.array(own), axis=1)
        assert distance_K[row] < distance_K[1 - row]


def test_a_class_that_nobody_holds_stays_known():
    method = build(FedTGPConfig(server_epochs=1), TASK)
    state, _ = method.server_round({}, [make_upload(0, [0, 3], [[1.0, -1.0], [-1.0, 1.0]])], Server(0, 1))
    state, broadcast = method.server_round(state, [make_upload(1, [1], [[1.0, -1.0]])], Server(0, 2))
    assert broadcast.payload["prototypes"]["classes"].tolist() == state["classes"].tolist() == [0, 1, 3]
    assert broadcast.round == 2


def test_a_class_that_nobody_holds_keeps_its_prototype_until_the_class_is_uploaded_again():
    method = build(FedTGPConfig(server_epochs=20), TASK)

    def round(number, state, classes):
        mean = [[1.0, -1.0], [-1.0, 1.0]]
        state, broadcast = method.server_round(state, [make_upload(0, classes, mean)], Server(0, number))
        net = method._new_net()
        load_weights(net, state["prototype_net"])
        with torch.no_grad():
            return state, broadcast.payload["prototypes"], net().numpy()

    state, first, _ = round(1, {}, [0, 3])
    for number in (2, 3):
        state, sent, trained_CD = round(number, state, [0, 1])
        assert sent["classes"].tolist() == [0, 1, 3]
        assert np.array_equal(sent["mean"][:2], trained_CD[:2])
        # The vector of class 3 moves, its prototype does not.
        assert not np.allclose(trained_CD[3], first["mean"][1], atol=1e-3)
        assert np.array_equal(sent["mean"][2], first["mean"][1])
    _, sent, trained_CD = round(4, state, [1, 3])
    assert np.array_equal(sent["mean"][1:], trained_CD[[1, 3]])
    assert not np.array_equal(sent["mean"][2], first["mean"][1])


@pytest.mark.parametrize("as_released", [False, True])
def test_uploads_are_class_means_of_the_trained_model(tiny_federation, as_released):
    federation = tiny_federation(FedTGPConfig(server_epochs=1, as_released=as_released))
    before = [client.statistics("scalar").mean_KD for client in federation.clients]
    uploads, _, _ = federation.round()
    for client, upload, untrained_KD in zip(federation.clients, uploads, before, strict=True):
        mean_KD = upload.payload["prototypes"]["mean"]
        assert mean_KD.dtype == np.float32
        trained_KD = client.statistics("scalar").mean_KD
        expected_KD, other_KD = (untrained_KD, trained_KD) if as_released else (trained_KD, untrained_KD)
        assert np.allclose(mean_KD, expected_KD, atol=1e-6)
        assert not np.allclose(mean_KD, other_KD, atol=1e-3)
        assert set(upload.payload["prototypes"]) == {"classes", "mean"}


def test_the_pull_starts_in_the_second_round(tiny_federation):
    federation = tiny_federation(FedTGPConfig(prototype_weight=0.3, server_epochs=1))
    uploads, state, broadcast = federation.round()
    assert "loss/prototype" not in uploads[0].scalars
    scalars = federation.round(state, broadcast)[0][0].scalars
    assert scalars["loss/prototype"] > 0
    whole = scalars["loss/classification"] + 0.3 * scalars["loss/prototype"]
    assert scalars["loss/train"] == pytest.approx(whole, rel=1e-6)


def test_the_nearest_prototype_predicts_among_classes_ever_uploaded(tiny_federation):
    federation = tiny_federation(FedTGPConfig())
    client, method = federation.clients[0], federation.method
    images = client.images.inputs()
    with torch.no_grad():
        features_BD = client.classifier.eval().features(images)
        sent = {"classes": np.array([0, 2]), "mean": features_BD[[0, 5]].numpy()}
        predictors = method.predictors(client, Broadcast(1, {"prototypes": sent}))
        assert list(predictors) == ["prototype", "head"]
        scores_BC = predictors["prototype"](images)
        assert torch.equal(predictors["head"](images), client.classifier(images))
    assert scores_BC[[0, 5]].argmax(dim=1).tolist() == [0, 2]
    assert scores_BC[:, 1].isneginf().all()
    assert torch.allclose(-scores_BC[:, 0], (features_BD - features_BD[0]).square().mean(dim=1), atol=1e-5)
    assert list(method.predictors(client, Broadcast())) == ["head"]
