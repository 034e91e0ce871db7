import pytest
import torch

from fedvtc.config.schema import Config, PopulationConfig
from fedvtc.learning.methods._shared_proxy import pair_of
from fedvtc.learning.methods.fedmrl import FedMRLConfig, nested_logits, nested_terms

CONFIG = FedMRLConfig(proxy="cnn_2x8", proxy_features=2)


@pytest.fixture
def pair(make_client):
    return pair_of(make_client(method=CONFIG)).eval()


def test_the_small_head_sees_exactly_the_first_fused_features(pair):
    images, labels_B = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    logits_BC, proxy_logits_BC = nested_logits(pair, images)
    features_BD, proxy_features_BS = pair.features(images)
    assert proxy_features_BS.shape == (4, 2)
    fused_BD = torch.cat([proxy_features_BS, features_BD], dim=1) @ pair.projection.weight.T + pair.projection.bias
    assert torch.allclose(logits_BC, pair.classifier.head(fused_BD), atol=1e-6)
    assert torch.allclose(proxy_logits_BC, pair.proxy.head(fused_BD[:, :2]), atol=1e-6)
    before = nested_terms(pair, images, labels_B)
    with torch.no_grad():
        pair.projection.bias[2] += 1.0
    after = nested_terms(pair, images, labels_B)
    assert torch.equal(after["proxy_classification"], before["proxy_classification"])
    assert not torch.equal(after["classification"], before["classification"])
    assert after["loss"] == after["classification"] + after["proxy_classification"]


def test_a_step_trains_both_models_and_the_projection(pair):
    nested_terms(pair, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))["loss"].backward()
    for module in (pair.classifier, pair.proxy, pair.projection):
        assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_the_projection_is_part_of_the_clients_state(tiny_federation):
    federation = tiny_federation(CONFIG)
    uploads, _, broadcast = federation.round()
    client = federation.clients[0]
    assert uploads[0].payload["proxy"].keys() == pair_of(client).proxy.state_dict().keys()
    assert "projection.weight" in client.state_dict()["pair"]["module"]
    predictors = federation.method.predictors(client, broadcast)
    images = torch.rand(3, 1, 8, 8)
    expected = nested_logits(pair_of(client).eval(), images)
    assert [torch.equal(predictors[name](images), expected[part]) for part, name in enumerate(("private", "proxy"))]


def test_a_proxy_has_at_most_the_features_of_the_private_models(golden, keys_of):
    config = Config(population=PopulationConfig(feature_size=4))
    assert FedMRLConfig(proxy_features=4).problems(config) == []
    (problem,) = FedMRLConfig(proxy_features=5).problems(config)
    assert keys_of(problem) == ["proxy_features"]
    golden(problem)
