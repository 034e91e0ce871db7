import numpy as np
import pytest
import torch
from torch import nn

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods.fedvtc.images import CHUNK, ImageSource, LazyImages
from fedvtc.learning.models.latents import LatentSampler


class Scale(nn.Module):
    """Decodes a latent to itself times one weight, as an image of one pixel."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.largest_batch = 0

    def forward(self, latents_ND):
        assert not self.training
        self.largest_batch = max(self.largest_batch, len(latents_ND))
        return (latents_ND * self.factor)[:, :, None, None]


def sampler(classes, means, num_classes=4):
    """Gaussians without spread, so that every image is known."""
    mean_KD = np.array(means, dtype=np.float32)[:, None]
    count_K, spread = np.ones(len(classes), dtype=np.int64), np.zeros(mean_KD.shape, dtype=np.float32)
    gaussians = ClassGaussians(np.array(classes), count_K, mean_KD, spread)
    return LatentSampler(gaussians, num_classes=num_classes, device=torch.device("cpu"))


def test_images_are_the_decoders_of_the_latents_as_many_of_each_class():
    source = ImageSource(sampler([0, 2], [3.0, 5.0]), Scale())
    drawn = source.draw(2)
    images, labels_N = drawn.all(), drawn.labels_N
    assert source.classes == [0, 2]
    assert labels_N.tolist() == [0, 0, 2, 2]
    assert images.flatten().tolist() == [3.0, 3.0, 5.0, 5.0]
    assert images.shape == (4, 1, 1, 1)
    assert not images.requires_grad


def test_latents_of_each_gaussian_are_decoded_by_the_generator_it_belongs_to():
    # Class 1 has rows of both generators; class 0 of the second, class 3 of the first.
    weights_G = [{"factor": torch.tensor(10.0)}, {"factor": torch.tensor(100.0)}]
    decoder = Scale()
    source = ImageSource(sampler([0, 1, 1, 3], [1.0, 2.0, 3.0, 4.0]), decoder, weights_G, torch.tensor([1, 0, 1, 0]))
    torch.manual_seed(0)
    drawn = source.draw(20)
    images, labels_N = drawn.all(), drawn.labels_N
    values = images.flatten().view(4 - 1, 20)
    assert labels_N.tolist() == [0] * 20 + [1] * 20 + [3] * 20
    assert set(values[0].tolist()) == {100.0}
    assert set(values[1].tolist()) == {20.0, 300.0}
    assert set(values[2].tolist()) == {40.0}
    assert decoder.factor == 1.0


@pytest.mark.parametrize("has_generators", [False, True])
def test_decoding_in_chunks_loses_no_image(has_generators):
    decoder = Scale()
    others = ([{"factor": torch.tensor(1.0)}], torch.tensor([0])) if has_generators else ()
    drawn = ImageSource(sampler([0], [7.0]), decoder, *others).draw(2 * CHUNK + 1)
    images = drawn.all()
    assert len(images) == len(drawn) == 2 * CHUNK + 1
    assert images.unique().tolist() == [7.0]
    assert decoder.largest_batch == CHUNK


def test_any_of_the_images_can_be_made_alone_and_joined_with_others():
    source = ImageSource(sampler([0, 1], [3.0, 5.0]), Scale())
    joined = source.draw(2).then(LazyImages(torch.tensor([3, 3]), lambda index_M: index_M.view(-1, 1, 1, 1) + 10.0))
    assert joined.labels_N.tolist() == [0, 0, 1, 1, 3, 3]
    assert joined.all().flatten().tolist() == [3.0, 3.0, 5.0, 5.0, 10.0, 11.0]
    for index in range(6):
        assert torch.equal(joined.images(torch.tensor([index])), joined.all()[index : index + 1])
    assert joined.images(torch.tensor([1, 2, 5])).flatten().tolist() == [3.0, 5.0, 11.0]
