"""Differential privacy of statistics: features are clipped, and counts, sums and second moments get Gaussian noise.

The unit of privacy is one image of one client, against an image that adds nothing (zero-out neighbours, P. Kairouz et
al., "Practical and Private (Deep) Learning without Sampling or Shuffling", 2021, arXiv 2103.00039). An image of class y
with a feature h, |h| <= clip, adds 1 to the count of y, h to the sum of y, and h h^T, or the part of h h^T that the
form keeps, to the second moment; the norm of the last is at most clip^2. Divided by 1, clip and clip^2, the three
parts together change by at most sqrt(3). Everything else here is computed from the noised numbers alone.

The bound holds for given features: it assumes that the backbone does not depend on the image.

Shapes: N images, C classes, K classes held, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedvtc.config.section import AddedLater, section
from fedvtc.learning.exchange.statistics import FeatureStatistics, FloatArray, Form

Normal = Callable[[tuple[int, ...]], FloatArray]
"""Draws standard normal numbers of a shape."""

_PARTS = 3
"""Counts, sums and second moments, each of sensitivity 1 after scaling."""
_LEAST_COUNT = 3.0
"""A class is sent if its noised count is at least so many standard deviations of the noise."""


@section
class PrivacyConfig:
    """Noise on the messages of a client."""

    noise_multiplier: Annotated[float, Field(ge=0), AddedLater()] = 0.0
    """Noise on counts, sums and second moments, as a multiple of the change by one image; 0: no noise."""
    clip: Annotated[float | None, Field(gt=0), AddedLater()] = None
    """Largest norm of a feature; null: the root of `population.feature_size`, which normalised features never
    exceed."""
    training_noise: Annotated[float, Field(ge=0), AddedLater()] = 0.0
    """Noise on the gradients of training in a round (DP-SGD), as a multiple of `training_clip`; 0: no noise. Without
    this noise the whole run has no guarantee."""
    training_clip: Annotated[float, Field(gt=0), AddedLater()] = 1.0
    """Largest norm of an image's gradient in DP-SGD."""
    delta: Annotated[float, Field(gt=0, lt=1), AddedLater()] = 1e-5
    """Delta of the guarantee; below 1 over the images of a client."""

    @property
    def is_on(self) -> bool:
        """True if anything gets noise."""
        return self.noise_multiplier > 0 or self.training_noise > 0

    def problems(self) -> list[str]:
        """Returns one text for each conflict, in the form of `MethodConfig.problems`."""
        found = []
        if self.training_noise > 0 and self.noise_multiplier == 0:
            found.append(
                "privacy.training_noise: has no effect on statistics, which are sent without noise. "
                "Set method.privacy.noise_multiplier above 0."
            )
        if self.is_on and not _has_opacus():
            found.append("privacy: noise needs Opacus, which is not installed. Install fedvtc[privacy] on every node.")
        return found


@dataclass(frozen=True)
class Mechanism:
    """The Gaussian mechanism for one upload of statistics.

    Attributes:
        noise_multiplier: standard deviation of the noise over the change by one image.
        clip: largest norm of a feature.
        num_classes: classes C, all of which are released: the classes of a client are private too.
    """

    noise_multiplier: float
    clip: float
    num_classes: int

    @classmethod
    def of(cls, config: PrivacyConfig, *, num_classes: int, feature_size: int) -> "Mechanism":
        """Builds the mechanism of a config."""
        clip = float(np.sqrt(feature_size)) if config.clip is None else config.clip
        return cls(config.noise_multiplier, clip, num_classes)

    @property
    def std(self) -> float:
        """The standard deviation of the noise on a count; sums have `clip` times and second moments `clip`^2 times."""
        return float(self.noise_multiplier * np.sqrt(_PARTS))

    def release(
        self, features_ND: NDArray[Any], labels_N: NDArray[Any], form: Form, normal: Normal
    ) -> FeatureStatistics:
        """Returns statistics of noised sums, of each class whose noised count is not mere noise, and of one at least.

        Means are moved into the ball of radius `clip`, and scatters to the nearest positive semi-definite ones.
        """
        count_C, sum_CD, second = self.noised(features_ND, labels_N, form, normal)
        held_C = count_C >= max(1.0, _LEAST_COUNT * self.std)
        held_C[np.argmax(count_C)] = True
        classes_K = np.flatnonzero(held_C)
        count_K = np.maximum(np.rint(count_C[held_C]), 1).astype(np.int64)
        mean_KD = clipped(sum_CD[held_C] / count_K[:, None], self.clip)
        if form.startswith("class_"):
            second = second[held_C]
        else:
            # The squares of classes that are left out leave the pooled sum, as if the images of all classes were alike.
            second = second * (count_K.sum() / max(count_C.sum(), count_K.sum()))
        scatter = _positive(second - _second_moment(mean_KD, count_K, form), form)
        return FeatureStatistics(form, classes_K, count_K, mean_KD, scatter)

    def noised(
        self, features_ND: NDArray[Any], labels_N: NDArray[Any], form: Form, normal: Normal
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Returns the noised counts (C,), sums (C, D) and second moments around 0, shaped by the form for C classes."""
        features_ND = clipped(np.asarray(features_ND, dtype=np.float64), self.clip)
        one_hot_NC = np.eye(self.num_classes)[labels_N]
        count_C, sum_CD = one_hot_NC.sum(axis=0), one_hot_NC.T @ features_ND
        if form == "class_full":
            second = np.stack([(features_ND * one_hot_N[:, None]).T @ features_ND for one_hot_N in one_hot_NC.T])
        else:
            second = _pooled(one_hot_NC.T @ np.square(features_ND), form)
        noise = normal(second.shape)
        if form == "class_full":
            # One number for both places of an entry: the norm of a triangle is at most that of the matrix.
            noise = np.tril(noise) + np.tril(noise, -1).transpose(0, 2, 1)
        return (
            count_C + self.std * normal(count_C.shape),
            sum_CD + self.std * self.clip * normal(sum_CD.shape),
            second + self.std * self.clip**2 * noise,
        )


@dataclass(frozen=True)
class PoissonSampling:
    """The batches of a pass of DP-SGD: each image is in each batch with the same probability.

    Attributes:
        num_images: images of the client; a batch may have any number of them, or none.
        batch_size: expected images of a batch.
    """

    num_images: int
    batch_size: int

    @property
    def rate(self) -> float:
        """The probability that an image is in a batch."""
        return min(1.0, self.batch_size / self.num_images)

    @property
    def num_batches(self) -> int:
        """The batches of a pass, as many as without Poisson sampling."""
        return -(-self.num_images // self.batch_size)


def clipped(rows_ND: FloatArray, clip: float) -> FloatArray:
    """Returns the rows, the longer ones shortened to the norm `clip`."""
    norm_N = np.linalg.norm(rows_ND, axis=1)
    scaled: FloatArray = rows_ND * np.minimum(1.0, clip / np.maximum(norm_N, np.finfo(np.float64).tiny))[:, None]
    return scaled


def _second_moment(mean_KD: FloatArray, count_K: NDArray[Any], form: Form) -> FloatArray:
    """Returns the second moment around 0 of images that all lie at the mean of their class."""
    if form == "class_full":
        return np.asarray(np.einsum("k,kd,ke->kde", count_K, mean_KD, mean_KD))
    return _pooled(count_K[:, None] * np.square(mean_KD), form)


def _pooled(per_class: FloatArray, form: Form) -> FloatArray:
    """Sums second moments of classes and features, (K, D), over the dimensions that the form pools."""
    if form == "scalar":
        return np.asarray(per_class.sum())
    return np.asarray(per_class.sum(axis=0)) if form == "client_diagonal" else per_class


def _positive(scatter: FloatArray, form: Form) -> FloatArray:
    """Returns the nearest scatter without a negative variance: negative eigenvalues become 0."""
    if form != "class_full":
        return np.maximum(scatter, 0.0)
    values_KD, vectors_KDD = np.linalg.eigh(scatter)
    positive: FloatArray = (vectors_KDD * np.maximum(values_KD, 0.0)[:, None, :]) @ vectors_KDD.transpose(0, 2, 1)
    return positive


def _has_opacus() -> bool:
    try:
        return find_spec("opacus") is not None
    except ValueError:  # A test, or a user, has blocked the import.
        return False
