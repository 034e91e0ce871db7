"""Class Gaussians in feature space: prototypes and their spread as distributions of latents.

Shapes: K rows (one per class held, or one per client and class in a mixture), C classes, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.exchange.messages import Arrays
from fedvtc.learning.exchange.statistics import FeatureStatistics

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Labelled Gaussians in float32, the precision of messages and draws.

    Attributes:
        classes_K: class of each row; ascending and unique except in a mixture.
        count_K: images behind each row; the weight of the row among the rows of the class.
        mean_KD: prototypes.
        spread: standard deviation of shape (), (D,) or (K, D), or lower Cholesky factors (K, D, D); the shape follows
            the covariance form of the statistics.
    """

    classes_K: IntArray
    count_K: IntArray
    mean_KD: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, statistics: FeatureStatistics, *, sigma_floor: float, prior_count: float) -> "ClassGaussians":
        """Builds the Gaussians of feature statistics.

        Args:
            statistics: one client's or merged statistics, of at least one image.
            sigma_floor: smallest standard deviation, so that 1 / sigma^2 stays bounded.
            prior_count: weight of the shrinkage target of a full covariance, in images.
        """
        if statistics.form == "class_full":
            spread = statistics.factor_KDD(floor=sigma_floor, prior_count=prior_count)
        else:
            std_KD = statistics.std_KD(floor=sigma_floor)
            spread = {"scalar": std_KD[0, 0], "client_diagonal": std_KD[0], "class_diagonal": std_KD}[statistics.form]
        mean_KD = statistics.mean_KD.astype(np.float32)
        return cls(statistics.classes_K, statistics.count_K, mean_KD, np.asarray(spread, dtype=np.float32))

    @classmethod
    def mixture(cls, parts: Sequence["ClassGaussians"]) -> "ClassGaussians":
        """Concatenates the rows of all parts, each with its own spread; a class has one row per part that holds it."""
        spreads = [part.spread if part.spread.ndim == 3 else part.std_KD() for part in parts]
        return cls(
            np.concatenate([part.classes_K for part in parts]),
            np.concatenate([part.count_K for part in parts]),
            np.concatenate([part.mean_KD for part in parts]),
            np.concatenate(spreads),
        )

    def std_KD(self) -> FloatArray:
        """Returns the standard deviation of each feature, (K, D); for a full covariance the root of the diagonal."""
        if self.spread.ndim == 3:
            std_KD: FloatArray = np.sqrt(np.square(self.spread).sum(axis=2))
            return std_KD
        return np.broadcast_to(self.spread, self.mean_KD.shape).copy()

    def dense(self, num_classes: int) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Returns arrays by class: means (C, D), standard deviations (C, D), held (C,); 0, 1, False without a row."""
        mean_CD = np.zeros((num_classes, self.mean_KD.shape[1]), dtype=np.float32)
        std_CD = np.ones_like(mean_CD)
        held_C = np.zeros(num_classes, dtype=np.bool_)
        mean_CD[self.classes_K], std_CD[self.classes_K], held_C[self.classes_K] = self.mean_KD, self.std_KD(), True
        return mean_CD, std_CD, held_C

    def keeping(self, previous: "ClassGaussians") -> "ClassGaussians":
        """Adds the rows of classes that only `previous` has: a lost class keeps its last row (FedProto's rule)."""
        lost_K = ~np.isin(previous.classes_K, self.classes_K)
        classes_K = np.concatenate([self.classes_K, previous.classes_K[lost_K]])
        order = np.argsort(classes_K)
        # A spread without a row per class is pooled over the classes of this round and stays unchanged.
        spread = self.spread if self.spread.ndim < 2 else np.concatenate([self.spread, previous.spread[lost_K]])[order]
        return ClassGaussians(
            classes_K[order],
            np.concatenate([self.count_K, previous.count_K[lost_K]])[order],
            np.concatenate([self.mean_KD, previous.mean_KD[lost_K]])[order],
            spread,
        )

    def to_payload(self) -> dict[str, Arrays]:
        """Builds the payload kinds `prototypes` and `covariance`."""
        return {
            "prototypes": {"classes": self.classes_K, "count": self.count_K, "mean": self.mean_KD},
            "covariance": {"spread": self.spread},
        }

    @classmethod
    def from_arrays(cls, prototypes: Arrays, covariance: Arrays) -> "ClassGaussians":
        """Builds Gaussians from the payload kinds that `to_payload` returned."""
        return cls(
            np.asarray(prototypes["classes"], dtype=np.int64),
            np.asarray(prototypes["count"], dtype=np.int64),
            np.asarray(prototypes["mean"], dtype=np.float32),
            np.asarray(covariance["spread"], dtype=np.float32),
        )
