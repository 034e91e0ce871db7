import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task
from fedvtc.learning.methods.fedproto import FedProto, FedProtoConfig
from fedvtc.learning.models.classifier import nearest_prototype, prototype_distance
from fedvtc.learning.server import Server


def make_upload(client, classes, count, mean, round=1):
    prototypes = {"classes": np.array(classes), "count": np.array(count), "mean": np.array(mean)}
    return Upload(client, round, sum(count), {"prototypes": prototypes})


@pytest.fixture
def method():
    return FedProto(FedProtoConfig(), Task(num_classes=4, num_channels=1, image_size=8, feature_size=2, seed=0))


def rows_of(broadcast):
    prototypes = broadcast.payload["prototypes"]
    assert prototypes["mean"].dtype == np.float32
    rows = zip(prototypes["classes"], prototypes["count"], prototypes["mean"], strict=True)
    return {int(label): (int(count), mean.tolist()) for label, count, mean in rows}


def test_global_prototypes_are_means_over_images_by_hand(method):
    uploads = [
        make_upload(0, [0, 2], [1, 2], [[1.0, 2.0], [0.0, 0.0]]),
        make_upload(1, [0], [3], [[5.0, 6.0]]),
        make_upload(2, [2, 3], [6, 4], [[4.0, 8.0], [7.0, 7.0]]),
    ]
    _, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.round == 1
    assert rows_of(broadcast) == {0: (4, [4.0, 5.0]), 2: (8, [3.0, 6.0]), 3: (4, [7.0, 7.0])}


def test_a_class_that_nobody_holds_keeps_its_last_value(method):
    state, _ = method.server_round({}, [make_upload(0, [0, 1], [1, 2], [[1.0, 1.0], [2.0, 2.0]])], Server(0, 1))
    state, broadcast = method.server_round(
        state, [make_upload(1, [1, 3], [4, 5], [[9.0, 9.0], [3.0, 3.0]], round=2)], Server(0, 2)
    )
    assert broadcast.round == 2
    assert rows_of(broadcast) == {0: (1, [1.0, 1.0]), 1: (4, [9.0, 9.0]), 3: (5, [3.0, 3.0])}
    _, broadcast = method.server_round(state, [make_upload(1, [3], [5], [[4.0, 4.0]], round=3)], Server(0, 1))
    assert rows_of(broadcast) == {0: (1, [1.0, 1.0]), 1: (4, [9.0, 9.0]), 3: (5, [4.0, 4.0])}


def test_uploads_are_prototypes_of_the_trained_model_for_the_classes_held(tiny_federation):
    federation = tiny_federation(FedProtoConfig())
    before = federation.clients[0].statistics("scalar").mean_KD
    uploads, _, broadcast = federation.round()
    for client, upload in zip(federation.clients, uploads, strict=True):
        assert set(upload.payload) == {"prototypes"}
        statistics = client.statistics("scalar")
        assert np.array_equal(upload.payload["prototypes"]["mean"], statistics.mean_KD)
        assert np.array_equal(upload.payload["prototypes"]["classes"], statistics.classes_K)
        assert np.array_equal(upload.payload["prototypes"]["count"], statistics.count_K)
    assert [upload.payload["prototypes"]["classes"].tolist() for upload in uploads] == [[0, 1], [0, 1, 2], [2]]
    assert not np.allclose(uploads[0].payload["prototypes"]["mean"], before, atol=1e-3)
    assert set(rows_of(broadcast)) == {0, 1, 2}


def test_the_first_round_has_no_pull_and_later_ones_have_fedprotos(tiny_federation):
    federation = tiny_federation(FedProtoConfig(prototype_weight=0.3))
    uploads, state, broadcast = federation.round()
    assert "loss/prototype" not in uploads[0].scalars
    uploads, _, _ = federation.round(state, broadcast)
    scalars = uploads[0].scalars
    assert scalars["loss/train"] == pytest.approx(
        scalars["loss/classification"] + 0.3 * scalars["loss/prototype"], rel=1e-6
    )
    mean_CD, std_CD, held_C = federation.clients[0].classifier._prototypes
    assert np.array_equal(mean_CD.numpy(), broadcast.payload["prototypes"]["mean"])
    # A spread of 1: the mean squared distance of the FedProto paper.
    features_BD, labels_B = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    expected = (features_BD - mean_CD[labels_B]).square().mean()
    assert prototype_distance(features_BD, labels_B, mean_CD, std_CD, held_C).item() == pytest.approx(expected.item())


def test_the_next_round_is_pulled_to_the_prototypes_of_the_broadcast(tiny_federation):
    digests = set()
    for shift in (0.0, 3.0):
        federation = tiny_federation(FedProtoConfig())
        _, _, broadcast = federation.round()
        prototypes = dict(broadcast.payload["prototypes"])
        prototypes["mean"] = prototypes["mean"] + np.float32(shift)
        federation.upload(0, Broadcast(1, {"prototypes": prototypes}))
        digests.add(federation.clients[0].weights_digest())
    assert len(digests) == 2


def test_without_weight_it_trains_as_local_does(tiny_federation, make_client):
    federation = tiny_federation(FedProtoConfig(prototype_weight=0.0))
    _, state, broadcast = federation.round()
    federation.round(state, broadcast)
    alone = make_client(0)
    alone.train()
    alone.begin_round(2)
    alone.train()
    assert federation.clients[0].weights_digest() == alone.weights_digest()


@pytest.mark.parametrize(("aggregation", "expected"), [("images", 1.0), ("clients", 2.0)])
def test_prototypes_weigh_by_images_or_by_clients(aggregation, expected):
    task = Task(num_classes=1, num_channels=1, image_size=8, feature_size=1, seed=0)
    method = FedProto(FedProtoConfig(aggregation=aggregation), task)
    uploads = [make_upload(0, [0], [30], [[0.0]]), make_upload(1, [0], [10], [[4.0]])]
    _, broadcast = method.server_round({}, uploads, Server(0, 1))
    assert broadcast.payload["prototypes"]["mean"].tolist() == [[expected]]


def test_prototypes_are_sent_in_the_precision_of_the_config(tiny_federation):
    sizes = {}
    for precision in ("float64", "float32"):
        uploads, _, _ = tiny_federation(FedProtoConfig(precision=precision)).round()
        assert uploads[1].payload["prototypes"]["mean"].dtype == precision
        sizes[precision] = uploads[1].payload["prototypes"]["mean"].nbytes
    # Three classes of six features.
    assert sizes == {"float64": 8 * 18, "float32": 4 * 18}


def test_the_nearest_prototype_of_all_classes_or_of_those_held(tiny_federation):
    scores = nearest_prototype(
        torch.tensor([[0.0, 0.0], [3.0, 1.0]]),
        torch.tensor([[1.0, 1.0], [4.0, 0.0], [0.0, 0.0]]),
        torch.tensor([True, True, False]),
    )
    assert scores.tolist() == [[-1.0, -8.0, -torch.inf], [-2.0, -1.0, -torch.inf]]

    for prediction, right in (("prototype", [0, 1, 2]), ("prototype_held", [0, 1])):
        federation = tiny_federation(FedProtoConfig(prediction=prediction))
        client = federation.clients[0]
        features_ND, labels_N = client.features().numpy(), client.images.labels_N.numpy()
        # Classes 0 and 1 lie where the client's features do, class 2, which the client does not hold, at image 0.
        means = [features_ND[labels_N == 0].mean(0), features_ND[labels_N == 1].mean(0), features_ND[0]]
        prototypes = {"classes": np.arange(3), "count": np.ones(3, dtype=np.int64), "mean": np.float32(means)}
        predictors = federation.method.predictors(client, Broadcast(1, {"prototypes": prototypes}))
        assert list(predictors) == [prediction, "head"]
        assert predictors["head"] is client.classifier
        named = predictors[prediction](client.images.inputs()).argmax(dim=1)
        assert set(named.tolist()) <= set(right)
        assert (named[0] == 2) == (prediction == "prototype")
