import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedvtc.learning.models import build_backbone
from fedvtc.learning.models.lookahead import guided_loss, target_gradients


def test_the_gradient_of_a_scalar_model_by_hand(monkeypatch):
    # f = w for every image, and the quiz's loss is w' itself: gamma = 1, J = 1, so 2 * 0.1 / (1 * 1) * 1.
    monkeypatch.setattr(functional, "cross_entropy", lambda logits_BC, labels_B: logits_BC.mean())
    batch = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)

    def outputs(weights, images):
        value_B1 = weights["w"].expand(len(images), 1)
        return value_B1, value_B1

    gradient_BD, loss = target_gradients(outputs, {"w": torch.tensor(3.0)}, batch, batch, torch.zeros(1, 1), lr=0.1)
    assert gradient_BD.item() == pytest.approx(0.2)
    # w' = 3 - 0.1 * (1 + 2 * 3).
    assert loss == pytest.approx(2.3)


@pytest.mark.parametrize("guided", [0, 1])
def test_the_gradient_is_that_of_backpropagation_through_the_step(guided):
    torch.manual_seed(0)
    features, head = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh()).double(), torch.nn.Linear(5, 3)
    model = torch.nn.ModuleDict({"features": features, "head": head.double()})
    study, quiz = ((torch.randn(6, 4).double(), torch.randint(3, (6,))) for _ in range(2))

    def outputs(weights, images):
        parts = {
            part: {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(part)}
            for part in model
        }
        features_BD = functional_call(model["features"], parts["features"], (images,))
        logits_BC = functional_call(model["head"], parts["head"], (features_BD,))
        return logits_BC, (logits_BC, features_BD)[guided]

    weights = dict(model.named_parameters())
    targets_CD = torch.randn(3, (3, 5)[guided], dtype=torch.float64, requires_grad=True)
    loss = guided_loss(*outputs(weights, study[0]), study[1], targets_CD)["loss"]
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    stepped = {name: value - 0.3 * slope for (name, value), slope in zip(weights.items(), slopes, strict=True)}
    quiz_loss = functional.cross_entropy(outputs(stepped, quiz[0])[0], quiz[1])
    (expected_CD,) = torch.autograd.grad(quiz_loss, targets_CD)

    before = [value.detach().clone() for value in weights.values()]
    detached = {name: value.detach() for name, value in weights.items()}
    gradient_BD, loss = target_gradients(outputs, detached, study, quiz, targets_CD.detach(), lr=0.3)
    found_CD = torch.zeros_like(targets_CD).index_add(0, study[1], gradient_BD)
    assert torch.allclose(found_CD, expected_CD, atol=1e-15)
    assert found_CD.abs().max() > 1e-4
    assert loss == pytest.approx(quiz_loss.item())
    assert all(
        value.grad is None and torch.equal(value, old) for value, old in zip(weights.values(), before, strict=True)
    )


@pytest.mark.parametrize("name", ["cnn_2x8", "resnet8", "vit_tiny"])
def test_backbones_have_gradients_of_targets(name):
    backbone = build_backbone(name, num_channels=1, image_size=8, feature_size=4).eval()
    batch = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])

    def outputs(weights, images):
        features_BD = functional_call(backbone, weights, (images,))
        return features_BD, features_BD

    weights = {name: value.detach() for name, value in backbone.named_parameters()}
    gradient_BD, _ = target_gradients(outputs, weights, batch, batch, torch.zeros(4, 4), lr=0.1)
    assert gradient_BD.isfinite().all()
    assert gradient_BD.abs().max() > 0


def test_the_terms_of_the_loss_by_hand():
    logits_BC, targets_CD = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    terms = guided_loss(logits_BC, logits_BC, torch.tensor([0, 1]), targets_CD)
    assert terms["classification"].item() == pytest.approx(0.6931, abs=1e-4)
    # Means over two images and two entries: (1 + 1 + 9 + 0) / 4.
    assert terms["target"].item() == 2.75
    assert terms["loss"].item() == pytest.approx(3.4431, abs=1e-4)
