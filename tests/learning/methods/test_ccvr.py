import numpy as np
import pytest
import torch

from fedvtc.config.schema import BackboneShare, PopulationConfig
from fedvtc.learning.exchange.messages import bytes_by_kind
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods.ccvr import CCVRConfig
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

SMALL = {"draws_per_class": 20, "epochs": 1}
LDA = {"base": "local", "head": "lda"}


def closed(federation, rounds=1):
    """Runs rounds and the closing exchange; returns the closing uploads, the last broadcast, the closing broadcast."""
    state, broadcast = federation.method.start()
    for _ in range(rounds):
        _, state, broadcast = federation.round(state, broadcast)
    uploads = []
    for client in federation.clients:
        client.begin_round(broadcast.round + 1)
        federation.method.receive(client, broadcast)
        uploads.append(federation.method.closing_upload(client, broadcast))
    server = Server(0, broadcast.round + 1)
    return uploads, broadcast, federation.method.closing_server(state, iter(uploads), server)


@pytest.mark.parametrize("base", ["lg_fedavg", "fedavg", "local"])
def test_the_head_alone_changes(tiny_federation, base):
    federation = tiny_federation(CCVRConfig(base=base, **SMALL))
    _, last, closing = closed(federation)
    client = federation.clients[1]
    federation.method.receive(client, last)
    before = weights_of(client.classifier)
    federation.method.receive(client, closing)
    after = weights_of(client.classifier)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert np.array_equal(after["head.weight"], closing.payload["head"]["weight"])


@pytest.mark.parametrize("keys", [SMALL, {**SMALL, "source": "mixture"}, LDA, {**LDA, "covariance": "total"}])
def test_bytes_are_those_of_the_formula(tiny_federation, keys):
    federation = tiny_federation(CCVRConfig(**keys))
    uploads, _, closing = closed(federation)
    size, triangle = 6, 6 * 7 // 2
    for upload, num_held in zip(uploads, (2, 3, 1), strict=True):
        matrices = 1 if keys.get("head") == "lda" else num_held
        expected = {"prototypes": 4 * num_held * (2 + size), "covariance": 4 * matrices * triangle}
        assert bytes_by_kind(upload.payload) == expected
    assert bytes_by_kind(closing.payload) == {"head": 4 * (size + 1) * 3}


def test_merged_messages_are_the_statistics_of_all_images(tiny_federation):
    for keys in (SMALL, LDA):
        federation = tiny_federation(CCVRConfig(**keys))
        uploads, last, _ = closed(federation)
        merged, pooled_DD = FeatureStatistics.empty(6, "class_full"), np.zeros((6, 6))
        union = FeatureStatistics.empty(6, "class_full")
        for upload, client in zip(uploads, federation.clients, strict=True):
            statistics, own_DD = federation.method._read(upload.payload)
            merged, pooled_DD = merged + statistics, pooled_DD + own_DD
            federation.method.receive(client, last)
            union += client.statistics("class_full")
        assert merged.mean_KD == pytest.approx(union.mean_KD, abs=1e-5)
        expected = union.scatter.sum(axis=0)
        assert pooled_DD + merged.scatter.sum(axis=0) == pytest.approx(expected, abs=1e-4)
        if keys is SMALL:
            assert merged.scatter == pytest.approx(union.scatter, abs=1e-4)


def test_draws_are_normalised_and_of_every_class_that_anyone_holds(tiny_federation, monkeypatch):
    federation = tiny_federation(CCVRConfig(**SMALL), indices=[0, 3, 6, 2, 5])
    seen = []

    def fit(self, module, batches, loss, optimizer):
        seen.extend(batches)

    monkeypatch.setattr(Server, "fit", fit)
    closed(federation)
    features_ND, labels_N = (torch.cat(part) for part in zip(*seen, strict=True))
    assert torch.bincount(labels_N).tolist() == [20, 0, 20]
    assert features_ND.mean(dim=1).abs().max() < 1e-5
    assert features_ND.var(dim=1, correction=0).sub(1).abs().max() < 1e-2


def test_training_starts_from_the_last_head_of_the_base(tiny_federation, monkeypatch):
    federation = tiny_federation(CCVRConfig(**SMALL))
    monkeypatch.setattr(Server, "fit", lambda *arguments: {})
    _, last, closing = closed(federation)
    assert np.array_equal(closing.payload["head"]["weight"], last.payload["head"]["weight"])


def test_sources_give_different_heads_and_the_key_gives_the_bits(tiny_federation):
    heads = []
    for source in ("pooled", "pooled", "mixture"):
        _, _, closing = closed(tiny_federation(CCVRConfig(source=source, **SMALL)))
        heads.append(closing.payload["head"]["weight"])
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


@pytest.mark.parametrize("keys", [SMALL, LDA])
def test_clients_of_one_image_give_a_finite_head(tiny_federation, keys):
    _, _, closing = closed(tiny_federation(CCVRConfig(**keys), indices=[4]))
    assert all(np.isfinite(array).all() for array in closing.payload["head"].values())


@pytest.mark.parametrize("source", ["pooled", "mixture"])
def test_a_small_floor_gives_a_finite_head(tiny_federation, source):
    # Fewer images than features make every covariance singular, and rounding to float32 indefinite.
    config = CCVRConfig(sigma_floor=1e-6, source=source, **SMALL)
    _, _, closing = closed(tiny_federation(config, indices=range(12)))
    assert all(np.isfinite(array).all() for array in closing.payload["head"].values())


def test_the_paper_base_refuses_mixed_backbones_in_one_line(tiny_config, golden, keys_of):
    mixed = PopulationConfig(3, [BackboneShare("cnn_2x8", 0.5), BackboneShare("cnn_2x16", 0.5)], feature_size=6)
    config = CCVRConfig(base="fedavg")
    (problem,) = config.problems(tiny_config(config, population=mixed))
    assert keys_of(problem) == ["base"]
    golden(problem)
    assert CCVRConfig().problems(tiny_config(CCVRConfig(), population=mixed)) == []
