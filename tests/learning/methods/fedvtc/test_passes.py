"""The images of each pass of fine-tuning."""

import numpy as np
import pytest
import torch
from torch import nn

from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods.fedvtc import FinetuneConfig, passes
from fedvtc.learning.methods.fedvtc.images import ImageSource
from fedvtc.learning.methods.fedvtc.passes import Passes
from fedvtc.learning.models.latents import LatentSampler

NUM_CLASSES, SIDE = 4, 8
COUNTS = [12, 9, 40, 0]


class Painted(nn.Module):
    """Decodes a latent to an image of one grey, the latent's first feature."""

    def forward(self, latents_BD):
        return latents_BD[:, 0, None, None, None].expand(-1, 1, SIDE, SIDE)


def make_passes(**keys):
    """Generated images are darker than -0.5; own images are white, and class 3 has none."""
    mean_KD = np.full((NUM_CLASSES, 2), -0.75, dtype=np.float32)
    gaussians = ClassGaussians(np.arange(4), np.ones(4, dtype=np.int64), mean_KD, np.float32(0.01))
    sampler = LatentSampler(gaussians, num_classes=NUM_CLASSES, device=torch.device("cpu"))
    labels_N = np.repeat(np.arange(4), COUNTS)
    pixels = np.full((len(labels_N), 1, SIDE, SIDE), 255, dtype=np.uint8)
    own = OwnImages(ImageArrays(pixels, labels_N), np.arange(len(labels_N)), "none", torch.device("cpu"))
    return Passes(ImageSource(sampler, Painted()), own, FinetuneConfig(**keys))


def counts(drawn):
    """Own and generated images of each class."""
    is_own_N = drawn.all().flatten(1).amax(dim=1) > 0
    labels_N = drawn.labels_N
    return [[int((is_own_N[labels_N == y] == own).sum()) for own in (True, False)] for y in range(NUM_CLASSES)]


def greys(drawn):
    return set(drawn.all()[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("pool", [0, 500])
def test_balanced_passes_replace_a_share_of_each_class_that_the_client_holds_enough_of(pool):
    drawn = make_passes(images_per_class=200, real_data="balanced", real_share=0.25, pool=pool).draw()
    # A quarter is 50 of 200: twelve images are repeated at most 48 times, nine are too few, forty reach 50.
    assert counts(drawn) == [[48, 152], [0, 200], [50, 150], [0, 200]]


@pytest.mark.parametrize(("real_data", "own"), [("none", 0), ("after", 0), ("mixed", 1)])
def test_other_uses_of_own_images_leave_the_generated_images_alone(real_data, own):
    drawn = make_passes(images_per_class=20, real_data=real_data).draw()
    assert counts(drawn) == [[own * count, 20] for count in COUNTS]


def test_all_passes_take_their_images_from_one_pool():
    whole = make_passes(images_per_class=20, pool=20)
    assert greys(whole.draw()) == greys(whole.draw())
    part = make_passes(images_per_class=20, pool=25)
    first, second = greys(part.draw()), greys(part.draw())
    assert first != second
    # 80 of 100 images a pass.
    assert len(first) == 80
    assert len(first | second) <= 100
    fresh = make_passes(images_per_class=20)
    assert not greys(fresh.draw()) & greys(fresh.draw())


def test_a_pool_that_is_too_large_is_decoded_on_demand_to_the_same_images(monkeypatch):
    drawn = []
    for largest in (2**26, 1):
        monkeypatch.setattr(passes, "WINDOW_BYTES", largest)
        torch.manual_seed(3)
        drawn.append(make_passes(images_per_class=5, pool=7).draw().all())
    assert torch.equal(*drawn)


def test_affine_changes_reach_own_images_of_balanced_and_not_of_mixed():
    def corners(**keys):
        """Dark corners of own images, which were turned or shifted."""
        drawn = make_passes(images_per_class=200, augment="affine", **keys).draw()
        own = drawn.all()
        own = own[own.flatten(1).amax(dim=1) > 0]
        return (own[:, 0, 0, 0] < 0.99).sum().item()

    assert corners(real_data="balanced") > 50
    assert corners(real_data="mixed") == 0


class Dotted(nn.Module):
    """Decodes any latent to an image of -0.5 with one dot of 0.4 inside."""

    def forward(self, latents_BD):
        images = torch.full((len(latents_BD), 1, SIDE, SIDE), -0.5)
        images[:, :, 2, 3] = 0.4
        return images


def test_sharpening_adds_the_difference_from_local_means_and_leaves_own_images(monkeypatch):
    whole = make_passes(images_per_class=50, sharpening=2.0, real_data="mixed")
    monkeypatch.setattr(whole._source, "_decoder", Dotted())
    drawn = whole.draw().all()
    generated, own = drawn[:200, 0], drawn[200:, 0]
    assert (own == 1).all()
    # The mean around the dot is (8 * -0.5 + 0.4) / 9 = -0.4: the dot gains 0.8 a, a neighbour loses 0.1 a.
    dots_N = generated[:, 2, 3]
    strength_N = (-0.5 - generated[:, 2, 4]) / 0.1
    assert 0 <= strength_N.min() < 0.1
    assert 1.9 < strength_N.max() <= 2.0001
    assert torch.allclose(dots_N, (0.4 + 0.8 * strength_N).clamp(max=1), atol=1e-5)
    assert (generated[:, 6, 6] == -0.5).all()


def test_the_edge_of_an_even_image_is_not_sharpened():
    plain = make_passes(images_per_class=5, sharpening=3.0).draw().all()
    assert torch.allclose(plain, plain[:, :, :1, :1].expand_as(plain), atol=1e-6)
