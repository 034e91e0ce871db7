"""Memorisation: are generated images nearer to training images than to images that no client trains on?

Shapes: N generated images, T training images, U unseen images.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.data import ImageArrays
from fedvtc.learning.population import Population
from fedvtc.learning.privacy.neighbours import Nearest, nearest
from fedvtc.learning.seeding import SERVER, numpy_generator

MEMORISATION = {
    "memorisation/ratio": "distance of a generated image to the nearest training image over the distance to the nearest"
    " unseen image, median over generated images; much below 1 means copies",
    "memorisation/share": "share of the generated images that are nearer to a training image than to any unseen image;"
    " compare with memorisation/chance",
    "memorisation/chance": "share of training images among the compared real images: the value of memorisation/share"
    " for a generator that copies nothing",
}
"""Meaning of the measures of generated images in the final record."""

MAX_PRODUCTS = 10**10
"""Most products of pixels in a bounded measurement, about a second of one core."""
MAX_GENERATED = 256
"""Most generated images in a bounded measurement."""


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Generated images with their nearest training and unseen images.

    Attributes:
        training: the nearest training image of each generated image.
        unseen: the nearest unseen image of each generated image.
        num_training: training images T.
        num_unseen: unseen images U.
    """

    training: Nearest
    unseen: Nearest
    num_training: int
    num_unseen: int

    @classmethod
    def of(
        cls, images_NCHW: NDArray[np.uint8], training_TCHW: NDArray[np.uint8], unseen_UCHW: NDArray[np.uint8]
    ) -> Self:
        """Compares generated images with real ones; all are pixels from 0 to 255, and no array is empty."""
        found = nearest(images_NCHW, training_TCHW), nearest(images_NCHW, unseen_UCHW)
        return cls(*found, len(training_TCHW), len(unseen_UCHW))

    @property
    def ratio_N(self) -> NDArray[np.float64]:
        """Distance to the nearest training image over the distance to the nearest unseen image; 1 if both are 0."""
        train_N, unseen_N = self.training.distance_N, self.unseen.distance_N
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(train_N == unseen_N, 1.0, train_N / unseen_N)

    def record(self) -> dict[str, float]:
        """Returns the measures by the names of `MEMORISATION`; an image that is equally near to both counts half."""
        train_N, unseen_N = self.training.distance_N, self.unseen.distance_N
        share = np.mean(train_N < unseen_N) + np.mean(train_N == unseen_N) / 2
        return {
            "memorisation/ratio": float(np.median(self.ratio_N)),
            "memorisation/share": float(share),
            "memorisation/chance": self.num_training / (self.num_training + self.num_unseen),
        }


@dataclass(frozen=True, eq=False)
class RealImages:
    """The training images of all clients, and images that no client trains on.

    Unseen are the images of the training set that no client holds, which come from the source of the clients' images.
    If they are fewer than the test images, the test images are unseen.

    Attributes:
        train: training images of the data set.
        training_T: indices of the clients' images in `train`.
        others: the images that the unseen images are part of.
        unseen_U: indices of the unseen images in `others`.
    """

    train: ImageArrays
    training_T: NDArray[np.int64]
    others: ImageArrays
    unseen_U: NDArray[np.int64]

    @classmethod
    def of(cls, population: Population) -> Self:
        """Finds the images of a population."""
        train, test = population.dataset.train, population.dataset.test
        training_T = np.unique(np.concatenate([spec.indices_N for spec in population.specs]))
        held = np.unique(np.concatenate([spec.held for spec in population.specs]))
        left_U = np.setdiff1d(np.arange(len(train.labels_N)), held)
        if len(left_U) < len(test.labels_N):
            return cls(train, training_T, test, np.arange(len(test.labels_N)))
        return cls(train, training_T, train, left_U)

    @property
    def training(self) -> ImageArrays:
        """A copy of the training images."""
        return ImageArrays(self.train.images_NCHW[self.training_T], self.train.labels_N[self.training_T])

    @property
    def unseen(self) -> ImageArrays:
        """A copy of the unseen images."""
        return ImageArrays(self.others.images_NCHW[self.unseen_U], self.others.labels_N[self.unseen_U])

    def drawn(self, rng: np.random.Generator, share: float) -> "RealImages":
        """Draws a share of both kinds of images, at least one each; draws nothing if the share is 1."""
        parts = []
        for index in (self.training_T, self.unseen_U):
            parts.append(index[drawn_indices(rng, len(index), max(1, int(share * len(index))))])
        return replace(self, training_T=parts[0], unseen_U=parts[1])


def bounded_memorisation(images_NCHW: NDArray[np.uint8], population: Population, seed: int) -> dict[str, float]:
    """Returns the measures of generated images within about a second, on drawn parts of large sets.

    Args:
        images_NCHW: generated images, pixels from 0 to 255.
        population: the data set and the clients.
        seed: `run.seed`, which keys the draws.
    """
    rng = numpy_generator(seed, round=0, client=SERVER, purpose="memorisation")
    images_NCHW = images_NCHW[drawn_indices(rng, len(images_NCHW), MAX_GENERATED)]
    real = RealImages.of(population)
    num_real = len(real.training_T) + len(real.unseen_U)
    part = real.drawn(rng, min(1.0, MAX_PRODUCTS / (images_NCHW.size * num_real)))
    return Memorisation.of(images_NCHW, part.training.images_NCHW, part.unseen.images_NCHW).record()


def drawn_indices(rng: np.random.Generator, num: int, most: int) -> NDArray[np.int64]:
    """Draws at most `most` of `num` indices, ascending; draws nothing if all fit."""
    return np.arange(num) if num <= most else np.sort(rng.choice(num, size=most, replace=False))
