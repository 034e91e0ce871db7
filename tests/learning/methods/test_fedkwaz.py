import numpy as np
import pytest
import torch
from torch.nn import functional

from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods._shared_proxy import pair_of
from fedvtc.learning.methods.fedkwaz import FedKWAZConfig, terms
from fedvtc.learning.methods.fedkwaz.mixing import mix_patches, patch_shares
from fedvtc.learning.methods.fedkwaz.terms import anchored_terms
from fedvtc.learning.server import Server

CONFIG = FedKWAZConfig(proxy="cnn_2x8", search_every=2)
IMAGES, LABELS = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])


@pytest.fixture
def pair(make_client):
    return pair_of(make_client(method=CONFIG)).eval()


def test_a_batch_of_one_image_is_not_mixed():
    assert torch.equal(mix_patches(IMAGES[:1], 0.5, 16), IMAGES[:1])


def test_a_pixel_is_mixed_with_the_same_pixel_of_another_image():
    torch.manual_seed(0)
    mixed = mix_patches(torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)]), 1.0, 16)
    assert torch.allclose(mixed[0] + mixed[1], torch.ones(1, 16, 16))
    assert 0 < len(mixed[0].unique()) <= 17


@pytest.mark.parametrize(("side", "num_patches"), [(8, 64), (28, 49), (32, 16), (12, 4)])
def test_borders_move_to_both_sides_by_a_quarter_of_a_patch(side, num_patches):
    rows = int(num_patches**0.5)
    reach = side // rows // 4
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        shares_SS = patch_shares(side, 1.0, num_patches)
        changes = np.flatnonzero((shares_SS[:, 1:] != shares_SS[:, :-1]).any(dim=0).numpy()) + 1
        seen |= {int(change) for change in changes}
    allowed = {round(index * side / rows) + move for index in range(rows + 1) for move in range(-reach, reach + 1)}
    assert seen <= allowed
    inner = round(side / rows)
    assert {inner - reach, inner + reach} <= seen


def test_each_model_learns_the_anchors_of_the_other(pair):
    anchors = {
        "features": torch.zeros(3, 6, requires_grad=True),
        "logits": torch.zeros(3, 3),
        "proxy_features": torch.ones(3, 6),
        "proxy_logits": torch.eye(3),
        "held": torch.tensor([True, True, False]),
    }
    outputs = pair(IMAGES)
    terms = anchored_terms(pair, IMAGES, LABELS, anchors=anchors)
    # The image of class 2 has no anchor, and the divisor stays 4.
    held = [0, 1, 3]
    expected = (outputs.features_BD[held] - 1.0).square().mean(dim=1).sum() / 4
    assert terms["anchor_features"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected = outputs.proxy_features_BD[held].square().mean(dim=1).sum() / 4
    assert terms["proxy_anchor_features"].item() == pytest.approx(expected.item(), rel=1e-5)
    targets_BC = torch.eye(3).softmax(dim=1)[LABELS[held]]
    expected = -(targets_BC * outputs.logits_BC[held].log_softmax(dim=1)).sum() / 4
    assert terms["anchor_logits"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected = -(outputs.proxy_logits_BC[held].log_softmax(dim=1) / 3).sum() / 4
    assert terms["proxy_anchor_logits"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx(sum(terms[name].item() for name in terms if name != "loss"), rel=1e-5)
    terms["proxy_anchor_features"].backward()
    assert anchors["features"].grad is None
    assert all(weight.grad is None for weight in pair.classifier.parameters())


def test_without_anchors_both_models_learn_the_labels_alone(pair):
    assert set(anchored_terms(pair, IMAGES, LABELS)) == {"loss", "classification", "proxy_classification"}


def test_the_second_stage_by_hand(pair, monkeypatch):
    torch.manual_seed(1)
    mixed = {parameters: torch.rand(IMAGES.shape) for parameters in ((0.1, 64), (0.5, 16), (1.0, 4))}
    with torch.no_grad():
        # The divergence of small logits is almost symmetric.
        pair.classifier.head.weight.mul_(20)
        pair.proxy.head.weight.mul_(10)
    monkeypatch.setattr(terms, "mix_patches", lambda images, *parameters: mixed[parameters])
    zones = dict(zip(("features", "private", "proxy"), mixed, strict=True))
    found = terms.zone_terms(pair, IMAGES, LABELS, zones=zones, temperature=4.0, with_labels=True)
    x, x_features, x_private, x_proxy = map(pair, (IMAGES, *mixed.values()))

    def divergence(teacher_BC, student_BC):
        teacher_BC, student_BC = (teacher_BC / 4).softmax(dim=1), (student_BC / 4).softmax(dim=1)
        return 16 * (teacher_BC * (teacher_BC / student_BC).log()).sum(dim=1).mean()

    def distance(outputs):
        return (outputs.features_BD - outputs.proxy_features_BD).square().mean()

    # The proxy teaches on the images of the private model, and the private model on those of the proxy.
    zones_sum = divergence(x_private.proxy_logits_BC, x_private.logits_BC) + divergence(
        x_proxy.logits_BC, x_proxy.proxy_logits_BC
    )
    swapped = divergence(x_proxy.proxy_logits_BC, x_proxy.logits_BC) + divergence(
        x_private.logits_BC, x_private.proxy_logits_BC
    )
    assert zones_sum.item() != pytest.approx(swapped.item(), rel=1e-3)
    expected = {
        "mutual": divergence(x.proxy_logits_BC, x.logits_BC) + divergence(x.logits_BC, x.proxy_logits_BC),
        # Each model is pulled to the other.
        "features": 2 * distance(x) + 2 * distance(x_features),
        "zones": zones_sum,
        "classification": functional.cross_entropy(x.logits_BC, LABELS),
        "proxy_classification": functional.cross_entropy(x.proxy_logits_BC, LABELS),
    }
    assert {name: found[name].item() for name in expected} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4
    )
    assert found["loss"].item() == pytest.approx(sum(value.item() for value in expected.values()), rel=1e-4)
    without = terms.zone_terms(pair, IMAGES, LABELS, zones=zones, temperature=4.0, with_labels=False)
    assert set(without) == {"loss", "mutual", "features", "zones"}
    assert without["loss"].item() == pytest.approx(sum(without[name].item() for name in set(without) - {"loss"}))


@pytest.fixture
def make_upload():
    def make(client, classes, value, round=1):
        sizes = {"features": 2, "logits": 3, "proxy_features": 2, "proxy_logits": 3}
        anchors = {name: np.full((len(classes), size), value, np.float32) for name, size in sizes.items()}
        return Upload(client, round, 5, {"anchors": {"classes": np.array(classes), **anchors}})

    return make


def test_anchors_are_plain_means_over_holders_and_lost_classes_keep_theirs(make_upload):
    method = build(CONFIG, Task(num_classes=3, num_channels=1, image_size=8, feature_size=2, seed=0))
    uploads = [make_upload(0, [0, 2], 1.0), make_upload(1, [0], 4.0)]
    state, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    anchors = broadcast.payload["anchors"]
    assert anchors["classes"].tolist() == [0, 2]
    assert anchors["features"].tolist() == [[2.5, 2.5], [1.0, 1.0]]
    _, broadcast = method.server_round(state, [make_upload(1, [0, 1], 8.0, round=2)], Server(0, 2))
    anchors = broadcast.payload["anchors"]
    assert anchors["classes"].tolist() == [0, 1, 2]
    assert anchors["proxy_logits"][:, 0].tolist() == [8.0, 8.0, 1.0]


def test_a_round_uploads_class_means_of_both_trained_models_and_no_proxy(tiny_federation):
    federation = tiny_federation(CONFIG)
    client, upload = federation.clients[0], federation.upload(0, Broadcast())
    anchors = upload.payload["anchors"]
    assert set(upload.payload) == {"anchors"}
    assert anchors["classes"].tolist() == [0, 1]
    outputs = pair_of(client).eval()(client.images.inputs(torch.arange(client.num_images)))
    mean_C = outputs.proxy_logits_BC[client.images.labels_N == 1].mean(dim=0)
    assert anchors["proxy_logits"][1].tolist() == pytest.approx(mean_C.tolist(), abs=1e-5)
    assert {name for name in upload.scalars if name.startswith("time/")} == {
        f"time/{phase}" for phase in ("train", "search", "zones", "statistics")
    }
    assert client.memory["searched"] == 1
    _, broadcast = federation.method.server_round({}, [upload], Server(0, 1))
    scalars = federation.upload(0, broadcast).scalars
    assert "time/search" not in scalars
    assert "loss/anchor_logits" in scalars


def test_zones_are_the_mixes_with_the_largest_disagreement(tiny_federation, monkeypatch):
    federation = tiny_federation(CONFIG)
    method, client = federation.method, federation.clients[0]
    found = {(0.1, 64): [3.0, 0.0, 0.0], (0.5, 16): [0.0, 5.0, 1.0], (1.0, 4): [2.0, 4.0, 2.0]}
    monkeypatch.setattr(
        type(method), "_disagreements", lambda self, client, *candidate: np.array(found.get(candidate, [0.0] * 3))
    )
    method._search(client)
    zones = [client.memory[name].tolist() for name in ("features", "private", "proxy")]
    assert zones == [[0.1, 64.0], [0.5, 16.0], [1.0, 4.0]]


def test_nothing_is_anchored_before_the_first_broadcast(tiny_federation):
    federation = tiny_federation(CONFIG)
    assert federation.method._anchors(federation.clients[0], Broadcast()) is None
