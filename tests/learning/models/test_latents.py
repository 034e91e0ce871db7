import numpy as np
import pytest
import torch

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.models import latents as latents_module
from fedvtc.learning.models.latents import LatentSampler

NUM_DRAWS = 40_000


def sampler(classes, count, mean, spread, num_classes=4):
    gaussians = ClassGaussians(
        np.array(classes, dtype=np.int64),
        np.array(count, dtype=np.int64),
        np.array(mean, dtype=np.float32),
        np.array(spread, dtype=np.float32),
    )
    return LatentSampler(gaussians, num_classes=num_classes, device=torch.device("cpu"))


def draws(latents, label):
    torch.manual_seed(0)
    return latents.draw(torch.full((NUM_DRAWS,), label))[0].double()


@pytest.mark.parametrize("spread", [0.5, [0.5, 2.0], [[0.5, 2.0], [3.0, 1.0]]])
def test_diagonal_draws_have_the_mean_and_the_spread_of_their_class(spread):
    mean = [[1.0, -2.0], [10.0, 20.0]]
    latents = sampler([0, 2], [1, 1], mean, spread)
    assert latents.classes == [0, 2]
    for row, label in enumerate(latents.classes):
        drawn = draws(latents, label)
        std = torch.tensor(np.broadcast_to(spread, (2, 2))[row].copy())
        # Four standard errors of the mean and of the covariance.
        assert (drawn.mean(dim=0) - torch.tensor(mean[row])).abs().lt(4 * std / NUM_DRAWS**0.5).all()
        assert (
            drawn.T.cov().sub(std.square().diag()).abs().lt(4 * 2**0.5 * torch.outer(std, std) / NUM_DRAWS**0.5).all()
        )


def test_full_draws_have_the_covariance_of_their_class():
    factors = [[[2.0, 0.0], [1.5, 0.5]], [[1.0, 0.0], [-0.9, 0.1]]]
    latents = sampler([1, 3], [1, 1], [[0.0, 0.0], [5.0, 5.0]], factors)
    for row, label in enumerate(latents.classes):
        factor, drawn = torch.tensor(factors[row], dtype=torch.float64), draws(latents, label)
        assert torch.allclose(drawn.mean(dim=0), torch.tensor([5.0 * row] * 2, dtype=torch.float64), atol=0.05)
        assert torch.allclose(drawn.T.cov(), factor @ factor.T, atol=0.12)


def test_labels_of_one_call_may_differ_and_each_gets_its_own():
    latents = sampler([0, 1, 3], [1, 1, 1], [[0.0], [10.0], [30.0]], 0.01)
    drawn, row_N = latents.draw(torch.tensor([3, 0, 1, 3]))
    assert row_N.tolist() == [2, 0, 1, 2]
    assert drawn.flatten().round().tolist() == [30.0, 0.0, 10.0, 30.0]
    assert drawn.dtype == torch.float32


def test_a_mixture_weighs_its_rows_by_images():
    latents = sampler([0, 1, 1, 1], [7, 1, 3, 4], [[-9.0], [0.0], [10.0], [20.0]], [[0.01]] * 4)
    assert latents.classes == [0, 1]
    shares = torch.bincount((draws(latents, 1).flatten() / 10).round().long(), minlength=3) / NUM_DRAWS
    assert shares.tolist() == pytest.approx([1 / 8, 3 / 8, 4 / 8], abs=0.01)
    drawn, row_N = latents.draw(torch.ones(50, dtype=torch.long))
    assert torch.equal((drawn.flatten() / 10).round().long(), row_N - 1)


def test_draws_come_from_pytorchs_global_generator():
    latents = sampler([0], [1], [[0.0, 0.0]], 1.0)
    labels = torch.zeros(3, dtype=torch.long)
    torch.manual_seed(5)
    first, _ = latents.draw(labels)
    assert not torch.equal(first, latents.draw(labels)[0])
    torch.manual_seed(5)
    assert torch.equal(first, latents.draw(labels)[0])


def test_read_only_arrays_are_copied():
    arrays = [np.array([0]), np.array([1]), np.zeros((1, 2), dtype=np.float32), np.ones(2, dtype=np.float32)]
    for array in arrays:
        array.flags.writeable = False
    latents = LatentSampler(ClassGaussians(*arrays), num_classes=1, device=torch.device("cpu"))
    assert latents.draw(torch.tensor([0]))[0].shape == (1, 2)


@pytest.mark.parametrize("spread", [np.zeros((3, 2)), np.zeros((3, 2, 2))], ids=["diagonal", "full"])
def test_many_latents_are_drawn_in_parts_each_of_its_own_class(monkeypatch, spread):
    monkeypatch.setattr(latents_module, "MOST_NUMBERS", 9)
    mean = [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    labels = torch.arange(3).repeat_interleave(5)
    drawn, row_N = sampler([0, 1, 2], [1, 1, 1], mean, spread).draw(labels)
    assert torch.equal(row_N, labels)
    assert torch.equal(drawn, torch.tensor(mean)[labels])
