"""Nearest images and memorisation, against numbers worked out by hand and generators of known behaviour."""

from dataclasses import replace

import numpy as np
import pytest

from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.population import ClientSpec, Population
from fedvtc.learning.privacy import neighbours
from fedvtc.learning.privacy.memorisation import Memorisation, RealImages, bounded_memorisation
from fedvtc.learning.privacy.neighbours import nearest


def greys(*values):
    """Images of 2 x 2 pixels of one grey value each."""
    return np.array(values, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), dtype=np.uint8)


def draw(num, seed):
    return np.random.default_rng(seed).integers(0, 256, (num, 1, 6, 6), dtype=np.uint8)


@pytest.fixture
def population():
    """Forty training images, of which two clients hold ten each and one is a validation image; 15 test images."""
    train, test = ImageArrays(draw(40, 0), np.arange(40) % 2), ImageArrays(draw(15, 1), np.arange(15) % 2)
    specs = [ClientSpec(0, "cnn_2x8", np.arange(10), np.array([39])), ClientSpec(1, "cnn_2x8", np.arange(10, 20))]
    return Population(Dataset("drawn", train, test, 2, ("a", "b")), specs, np.zeros((2, 2)), None)


def test_the_nearest_image_and_its_distance_over_chunks(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 1)

    found = nearest(greys(10, 200, 100), greys(0, 61, 200, 90, 110))

    assert found.index_N.tolist() == [0, 2, 3]
    np.testing.assert_allclose(found.distance_N, [10 / 255, 0, 10 / 255])
    assert nearest(greys(10, 20), greys(10, 20), skip_equal=True).index_N.tolist() == [1, 0]


def test_hand_worked_memorisation():
    # Distances to training: 5, 10, 0; to unseen images: 10, 10, 60.
    record = Memorisation.of(greys(15, 30, 100), greys(20, 100), greys(5, 40, 160)).record()

    assert record["memorisation/ratio"] == pytest.approx(0.5)
    assert record["memorisation/share"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert record["memorisation/chance"] == pytest.approx(2 / 5)


def test_copies_are_found_and_new_images_are_at_chance():
    training, unseen = draw(100, 0), draw(300, 1)
    copies = Memorisation.of(training[:50], training, unseen).record()
    new = Memorisation.of(draw(400, 2), training, unseen).record()

    assert copies["memorisation/ratio"] == 0
    assert copies["memorisation/share"] == 1
    assert new["memorisation/share"] == pytest.approx(new["memorisation/chance"], abs=0.07)


def test_unseen_images_are_those_that_no_client_holds(population):
    real = RealImages.of(population)

    assert real.training_T.tolist() == list(range(20))
    # Image 39 validates, so that it is neither a training image nor unseen.
    assert np.array_equal(real.unseen.images_NCHW, population.dataset.train.images_NCHW[20:39])
    few = replace(population, specs=[*population.specs, ClientSpec(2, "cnn_2x8", np.arange(20, 30))])
    assert np.array_equal(RealImages.of(few).unseen.images_NCHW, population.dataset.test.images_NCHW)


def test_a_bounded_measurement_draws_by_the_seed(population, monkeypatch):
    images = draw(30, 3)
    whole = bounded_memorisation(images, population, 0)
    real = RealImages.of(population)
    assert whole == Memorisation.of(images, real.training.images_NCHW, real.unseen.images_NCHW).record()

    monkeypatch.setattr("fedvtc.learning.privacy.memorisation.MAX_PRODUCTS", 36 * 30 * 20)

    first, again, other = (bounded_memorisation(images, population, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first["memorisation/chance"] == pytest.approx(10 / 19)
