import pytest
import torch

from fedvtc.learning.models.feature_losses import (
    distances,
    diversity_loss,
    label_weighted_loss,
    margin_contrast,
    mean_logits_loss,
    stacked_logits,
)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, 0.1269), (1.0, 0.3133)])
def test_the_contrast_of_two_prototypes_by_hand(margin, expected):
    loss = margin_contrast(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([[0.0], [2.0]]), margin)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_the_gradient_is_finite_where_a_row_lies_on_its_prototype():
    prototypes_CD = torch.tensor([[0.0], [2.0]], requires_grad=True)
    margin_contrast(torch.zeros(1, 1), torch.tensor([0]), prototypes_CD, 1.0).backward()
    assert prototypes_CD.grad.isfinite().all()
    # The other prototype moves away: descent adds to its positive coordinate.
    assert prototypes_CD.grad[1].item() < 0


def test_distances_are_euclidean():
    rows_BD, prototypes_CD = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.zeros(1, 2)
    assert distances(rows_BD, prototypes_CD).tolist() == [[5.0], [1.0]]


def test_the_teachers_of_two_heads_by_hand():
    logits_KBC, labels_B = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([0])
    assert mean_logits_loss(logits_KBC, labels_B).item() == pytest.approx(0.4741, abs=1e-4)
    count_KC = torch.tensor([[3.0, 9.0], [1.0, 0.0]])
    assert label_weighted_loss(logits_KBC, labels_B, count_KC).item() == pytest.approx(0.4235, abs=1e-4)


def test_stacked_heads_are_linear_layers():
    torch.manual_seed(0)
    heads = [torch.nn.Linear(4, 3) for _ in range(2)]
    features_BD = torch.randn(5, 4)
    weight_KCD, bias_KC = torch.stack([head.weight for head in heads]), torch.stack([head.bias for head in heads])
    for logits_BC, head in zip(stacked_logits(features_BD, weight_KCD, bias_KC), heads, strict=True):
        assert torch.allclose(logits_BC, head(features_BD), atol=1e-6)


def test_the_diversity_of_two_rows_by_hand():
    noise_BL, features_BD = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    # Two of four pairs have the product 1 * 1: exp(-1/2).
    assert diversity_loss(noise_BL, features_BD).item() == pytest.approx(0.6065, abs=1e-4)
