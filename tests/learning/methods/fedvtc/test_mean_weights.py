import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedvtc.learning.methods.fedvtc.mean_weights import MeanWeights


def averaged(start, values, decay):
    """The weight of a module after steps that set it to the values, and its mean."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, start)
    mean = MeanWeights(module, decay)
    seen = []
    for value in mean.watch(values):
        nn.init.constant_(module.weight, value)
        seen.append(value)
    assert seen == values
    last = module.weight.item()
    mean.replace_weights()
    return last, module.weight.item()


def test_the_mean_of_hand_worked_steps():
    # d = 1/10, 2/11: 0.1 * 5 + 0.9 * 1 = 1.4; 2/11 * 1.4 + 9/11 * 2.
    assert averaged(5.0, [1.0, 2.0], 0.5) == (2.0, pytest.approx(2 / 11 * 1.4 + 9 / 11 * 2.0))


@given(st.floats(-4, 4), st.floats(0, 0.999))
def test_the_mean_of_equal_weights_forgets_the_weights_before(value, decay):
    _, mean = averaged(1.0, [value] * 60, decay)
    assert mean == pytest.approx(value, abs=1e-5)


def test_the_decay_bounds_the_share_of_the_past():
    steps = [0.0] * 100 + [1.0]
    assert averaged(0.0, steps, 0.5)[1] == pytest.approx(0.5)
    assert averaged(0.0, steps, 0.99)[1] == pytest.approx(1 - 101 / 110)


def test_statistics_of_a_norm_are_averaged_with_the_weights_and_counts_are_not():
    norm = nn.BatchNorm1d(2, momentum=1.0)
    mean = MeanWeights(norm, 0.5)
    for images_BD in mean.watch([torch.tensor([[0.0, 2.0], [2.0, 4.0]]), torch.tensor([[4.0, 4.0], [6.0, 6.0]])]):
        norm(images_BD)
    mean.replace_weights()
    # The means of the batches are (1, 3) and (5, 5); shares as in the hand-worked steps, from a start at 0.
    torch.testing.assert_close(norm.running_mean, torch.tensor([2 / 11 * 0.9 + 45 / 11, 2 / 11 * 2.7 + 45 / 11]))
    assert norm.num_batches_tracked == 2
