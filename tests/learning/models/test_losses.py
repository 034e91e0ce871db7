"""Numbers worked out by hand."""

import math

import pytest
import torch

from fedvtc.learning.models.losses import distillation, ranking, soft_cross_entropy, squared_distance

LN3 = math.log(3.0)


def row(*values):
    return torch.tensor([values], requires_grad=True)


@pytest.mark.parametrize(("logits", "expected"), [((0.0, 0.0), math.log(2.0)), ((math.log(1.5), 0.0), 0.6730)])
def test_cross_entropy_of_soft_targets(logits, expected):
    assert soft_cross_entropy(torch.tensor([[0.6, 0.4]]), row(*logits)).item() == pytest.approx(expected, abs=1e-4)


def test_an_image_without_a_target_counts_zero():
    targets_BC = torch.tensor([[0.6, 0.4], [1.0, 0.0]])
    held_B = torch.tensor([True, False])
    assert soft_cross_entropy(targets_BC, torch.zeros(2, 2), held_B).item() == pytest.approx(math.log(2.0) / 2)
    assert squared_distance(torch.zeros(2, 2), torch.tensor([[1.0, 3.0], [9.0, 9.0]]), held_B).item() == 2.5


def test_distillation_by_hand_and_its_gradient():
    z, u = row(0.0, 0.0), row(LN3, 0.0)
    assert distillation(z, u).item() == pytest.approx(0.1438, abs=1e-4)
    loss = distillation(u, z)
    assert loss.item() == pytest.approx(0.1308, abs=1e-4)
    loss.backward()
    assert z.grad[0].tolist() == pytest.approx([-0.25, 0.25])
    assert u.grad is None
    assert distillation(u, z, temperature=4.0).item() == pytest.approx(0.1495, abs=1e-4)


def test_distillation_is_summed_over_classes_and_averaged_over_images():
    z, u = torch.zeros(3, 2), torch.tensor([[LN3, 0.0]] * 3)
    assert distillation(u, z).item() == pytest.approx(0.1308, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "inside", "expected"),
    [
        ((2.0, 0.0, 1.0), (True, False, True), 0.0),
        ((0.0, 3.0, 1.0), (True, False, True), 2.5),
        ((0.0, 3.0, 1.0), (True, True, True), 0.0),
        ((0.0, 3.0, 1.0), (False, False, False), 0.0),
    ],
)
def test_ranking_by_hand(logits, inside, expected):
    z = row(*logits)
    loss = ranking(z, torch.tensor([inside]))
    assert loss.item() == expected
    loss.backward()
    assert z.grad.tolist() == [[-0.5, 1.0, -0.5] if expected else [0.0, 0.0, 0.0]]


def test_targets_get_no_gradient():
    targets, values = row(0.5, 0.5), row(1.0, 0.0)
    (soft_cross_entropy(targets, values) + squared_distance(targets, values)).backward()
    assert targets.grad is None
    assert values.grad.abs().sum() > 0
