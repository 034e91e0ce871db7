import pytest
import torch

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.loop import Learner, make_fabric
from fedvtc.learning.models.classifier import build_classifier
from fedvtc.learning.models.losses import distillation
from fedvtc.learning.models.proxy import Pair


def build(name):
    sizes = {"num_channels": 1, "image_size": 8, "feature_size": 6, "num_classes": 3}
    return build_classifier(name, **sizes, optimizer=OptimizerConfig())


def private_alone(pair, images, labels_B):
    return {"loss": distillation(pair(images).proxy_logits_BC, pair(images).logits_BC)}


def both(pair, images, labels_B):
    outputs = pair(images)
    return {"loss": outputs.features_BD.square().sum() + outputs.proxy_logits_BC.sum()}


@pytest.fixture
def make_pair():
    def make(step):
        torch.manual_seed(0)
        return Pair(build("cnn_2x16"), build("cnn_2x8"), step, optimizer=OptimizerConfig(name="sgd", lr=0.1))

    return make


BATCH = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


def moved(pair, state):
    """The names of classifier and proxy whose weights differ from a state."""
    now = {"classifier": pair.classifier.state_dict(), "proxy": pair.proxy.state_dict()}
    return {
        name for name, weights in now.items() if any(not torch.equal(weights[key], state[name][key]) for key in weights)
    }


@pytest.mark.parametrize(("step", "expected"), [(private_alone, {"classifier"}), (both, {"classifier", "proxy"})])
def test_a_step_moves_the_models_that_its_loss_trains(make_pair, step, expected):
    pair = make_pair(step)
    models = {"classifier": pair.classifier, "proxy": pair.proxy}
    before = {
        name: {key: weight.clone() for key, weight in model.state_dict().items()} for name, model in models.items()
    }
    Learner(make_fabric(torch.device("cpu")), pair).fit([BATCH])
    assert moved(pair, before) == expected


def test_the_state_of_a_pair_has_no_weight_of_the_classifier(make_pair):
    pair = make_pair(both)
    assert {name.split(".")[0] for name in pair.state_dict()} == {"proxy"}
    groups = pair.configure_optimizers().param_groups
    assert [len(group["params"]) for group in groups] == [
        len(list(model.parameters())) for model in (pair.classifier, pair.proxy)
    ]


def test_the_mode_of_a_pair_is_that_of_both_models(make_pair):
    pair = make_pair(both)
    assert not pair.eval().classifier.training
    assert pair.train().classifier.training


def test_outputs_are_those_of_both_models(make_pair):
    pair = make_pair(both).eval()
    outputs = pair(BATCH[0])
    assert torch.equal(outputs.logits_BC, pair.classifier(BATCH[0]))
    assert torch.equal(outputs.proxy_logits_BC, pair.proxy(BATCH[0]))
    assert torch.equal(outputs.features_BD, pair.classifier.features(BATCH[0]))
    assert torch.equal(outputs.proxy_features_BD, pair.proxy.features(BATCH[0]))
