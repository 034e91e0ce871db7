"""Membership inference, prototype inversion and similarity, on cases with a known answer."""

import numpy as np
import pytest
import torch

from fedvtc.learning.data import ImageArrays
from fedvtc.learning.privacy.inversion import invert
from fedvtc.learning.privacy.membership import membership, membership_of
from fedvtc.learning.privacy.similarity import Similarity


def test_hand_worked_membership():
    # Of the four pairs, three have the lower loss on the training image.
    assert membership(np.array([1.0, 3.0]), np.array([2.0, 4.0]), np.ones(2)).auc == pytest.approx(0.75)
    # The first unseen image counts nothing.
    assert membership(np.array([1.0, 3.0]), np.array([2.0, 4.0]), np.array([0.0, 1.0])) == (1.0, 1.0)
    assert membership(np.array([1.0, 3.0]), np.array([2.0, 4.0]), np.ones(2)).tpr == pytest.approx(0.5)


def test_a_class_alone_gives_no_image_away():
    """The model knows class 0 only, and its losses do not depend on the image."""
    rng = np.random.default_rng(0)
    images = {num: rng.integers(0, 256, (num, 1, 4, 4), dtype=np.uint8) for num in (40, 60)}
    own = ImageArrays(images[40], np.array([0] * 30 + [1] * 10))
    unseen = ImageArrays(images[60], np.array([0] * 10 + [1] * 30 + [2] * 20))

    def predictor(images):
        return torch.tensor([[2.0, 0.0, 0.0]]).expand(len(images), 3)

    found = membership_of(predictor, own, unseen, batch_size=16, device=torch.device("cpu"))

    assert found.auc == pytest.approx(0.5)
    only = ImageArrays(images[60], np.full(60, 2))
    assert membership_of(predictor, own, only, batch_size=16, device=torch.device("cpu")) is None


def test_features_that_are_the_pixels_invert_to_the_image():
    image = np.random.default_rng(0).integers(20, 236, (1, 1, 5, 5), dtype=np.uint8)
    targets = torch.from_numpy(image).float().flatten(1) / 127.5 - 1
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]

    first, again = (invert(lambda images: 10 * images.flatten(1), 10 * targets, (1, 5, 5), draw) for draw in draws)

    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - image).max() <= 3


@pytest.mark.slow
def test_similarity_of_equal_inverted_and_slightly_changed_images():
    image = np.random.default_rng(0).integers(0, 246, (1, 3, 20, 20), dtype=np.uint8)
    images = np.concatenate([image] * 3)

    found = Similarity.of(images, np.concatenate([image, 255 - image, image + 10]))

    assert found.psnr_N[0] == 100
    assert found.psnr_N[2] == pytest.approx(20 * np.log10(25.5), abs=0.01)
    assert found.ssim_N[0] == pytest.approx(1, abs=1e-4)
    assert found.ssim_N[1] < 0 < 0.9 < found.ssim_N[2]
    small = image[:, :, :8, :8]
    assert Similarity.of(small, small).ssim_N.tolist() == pytest.approx([1], abs=1e-4)
