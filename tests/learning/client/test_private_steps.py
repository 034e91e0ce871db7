"""Steps of DP-SGD: gradients of single images, clipped and noised."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedvtc.learning.client.loop import Learner, make_fabric
from fedvtc.learning.client.private_steps import PrivateLoss, poisson_batches, private_optimizer
from fedvtc.learning.exchange.privacy import PoissonSampling
from fedvtc.learning.models import build_backbone


def vector(module):
    return torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])


def step(module, terms, batch, *, noise_multiplier=0.0, clip=1.0, expected=None):
    """The change of the weights by one step of rate 1, as one vector."""
    before = vector(module)
    sampling = PoissonSampling(expected or len(batch[0]), expected or len(batch[0]))
    sgd = torch.optim.SGD(module.parameters(), lr=1.0)
    optimizer = private_optimizer(sgd, sampling, noise_multiplier=noise_multiplier, clip=clip)
    loss = PrivateLoss(module, terms)
    optimizer.zero_grad()
    found = loss(*batch)
    found["loss"].backward()
    optimizer.step()
    return found, vector(module) - before


def test_each_gradient_is_clipped_by_hand():
    module = nn.Linear(2, 1, bias=False)

    def terms(inputs_B2, targets_B):
        product_B = module(inputs_B2)[:, 0] * targets_B
        return {"loss": product_B.mean(), "positive": (product_B > 0).double().mean()}

    # The gradient of an image is its input times its target: (3, 4) is clipped to norm 2, (0.5, 0) stays.
    batch = torch.tensor([[3.0, 4.0], [-0.5, 0.0]]), torch.tensor([1.0, -1.0])
    found, change = step(module, terms, batch, clip=2.0)
    torch.testing.assert_close(change, -torch.tensor([1.2 + 0.5, 1.6]) / 2)
    assert set(found) == {"loss", "positive"}


# Convolutions in channels-last layout, sums in place, and attention.
@pytest.mark.parametrize("name", ["cnn_2x16", "resnet8", "vit_tiny"])
def test_a_step_sums_the_clipped_gradients_of_single_images(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, num_channels=1, image_size=8, feature_size=4).to(memory_format=torch.channels_last)
    images, labels_B = torch.rand(3, 1, 8, 8), torch.tensor([0, 2, 2])

    def terms(images, labels_B):
        return {"loss": functional.cross_entropy(backbone(images), labels_B)}

    gradients, norms = [], []
    for number in range(3):
        backbone.zero_grad()
        terms(images[number : number + 1], labels_B[number : number + 1])["loss"].backward()
        gradients.append(torch.cat([weight.grad.reshape(-1) for weight in backbone.parameters()]))
        norms.append(gradients[-1].norm())
    clip = float(sorted(norms)[1])
    backbone.zero_grad()
    _, change = step(backbone, terms, (images, labels_B), clip=clip)
    expected = sum(gradient * min(1.0, clip / float(norm)) for gradient, norm in zip(gradients, norms, strict=True))
    torch.testing.assert_close(change, -expected / 3, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("num_images", [0, 5])
def test_noise_has_the_strength_of_the_clip_also_in_an_empty_batch(num_images):
    module = nn.Linear(100, 100, bias=False)
    torch.manual_seed(3)
    batch = (torch.zeros(num_images, 100),)
    found, change = step(
        module, lambda rows: {"loss": module(rows).sum(1).mean()}, batch, noise_multiplier=1.5, clip=4.0, expected=8
    )
    assert float(change.std()) == pytest.approx(1.5 * 4.0 / 8, rel=0.03)
    assert float(found["loss"].detach()) == 0.0


def test_every_step_of_a_fit_starts_anew_and_empty_batches_count_nothing():
    module = nn.Linear(2, 1, bias=False)
    before = vector(module)
    sampling = PoissonSampling(1, 1)
    optimizer = private_optimizer(
        torch.optim.SGD(module.parameters(), lr=1.0), sampling, noise_multiplier=0.0, clip=9.0
    )
    learner = Learner(make_fabric(torch.device("cpu")), module)
    loss = PrivateLoss(module, lambda rows: {"loss": module(rows).mean()})
    batches = [(torch.tensor([[1.0, 2.0]]),), (torch.zeros(0, 2),), (torch.tensor([[4.0, 0.0]]),)]
    assert set(learner.fit(batches, loss, optimizer)) == {"loss"}
    torch.testing.assert_close(vector(module) - before, torch.tensor([-5.0, -2.0]))
    assert learner.fit(batches[1:2], loss, optimizer) == {}


def test_the_loss_of_an_empty_batch_lies_on_the_device_of_the_weights():
    module = nn.Linear(2, 1, bias=False, device="meta")
    loss = PrivateLoss(module, lambda rows: {"loss": module(rows).mean()})
    assert loss(torch.zeros(0, 2, device="meta"))["loss"].device == module.weight.device


def test_batches_have_each_image_with_the_rate():
    torch.manual_seed(0)
    sampling = PoissonSampling(100, 20)
    drawn = torch.zeros(100)
    sizes = []
    for _ in range(100):
        for index_B in poisson_batches(sampling):
            drawn[index_B] += 1
            sizes.append(len(index_B))
    assert len(sizes) == 500
    # Binomial: 500 trials of probability 0.2, standard deviation 9.
    assert 60 < float(drawn.min()) <= float(drawn.max()) < 140
    assert min(sizes) < 16 < 24 < max(sizes)
