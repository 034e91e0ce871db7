"""Gaussians in feature space: what prototypes and spread become once they are read as distributions of latents.

Shapes: K rows (one for each class held, or for each class of each client in a mixture), C classes, D features.
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
    """Labelled Gaussians, in the float32 that they are sent and drawn with.

    Attributes:
        classes_K: class of each row; ascending and unique but in a mixture.
        count_K: images behind each row, its weight among the rows of its class.
        mean_KD: prototypes.
        spread: standard deviation of shape (), (D,) or (K, D), or lower Cholesky factors (K, D, D), as the covariance
            form of the statistics has it.
    """

    classes_K: IntArray
    count_K: IntArray
    mean_KD: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, statistics: FeatureStatistics, *, sigma_floor: float, prior_count: float) -> "ClassGaussians":
        """The Gaussians that statistics of at least one image describe.

        Args:
            statistics: of one client, or merged.
            sigma_floor: smallest standard deviation, so that 1 / sigma^2 stays bounded.
            prior_count: images that the shrinkage target of a full covariance counts for.
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
        """All rows of all parts, each with a spread of its own; a class has as many rows as parts hold it."""
        spreads = [part.spread if part.spread.ndim == 3 else part.std_KD() for part in parts]
        return cls(
            np.concatenate([part.classes_K for part in parts]),
            np.concatenate([part.count_K for part in parts]),
            np.concatenate([part.mean_KD for part in parts]),
            np.concatenate(spreads),
        )

    def std_KD(self) -> FloatArray:
        """Standard deviation of each feature, (K, D): of a full covariance, the root of its diagonal."""
        if self.spread.ndim == 3:
            std_KD: FloatArray = np.sqrt(np.square(self.spread).sum(axis=2))
            return std_KD
        return np.broadcast_to(self.spread, self.mean_KD.shape).copy()

    def dense(self, num_classes: int) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Rows by class number: means (C, D), standard deviations (C, D), held (C,); without a row: 0, 1, False."""
        mean_CD = np.zeros((num_classes, self.mean_KD.shape[1]), dtype=np.float32)
        std_CD = np.ones_like(mean_CD)
        held_C = np.zeros(num_classes, dtype=np.bool_)
        mean_CD[self.classes_K], std_CD[self.classes_K], held_C[self.classes_K] = self.mean_KD, self.std_KD(), True
        return mean_CD, std_CD, held_C

    def keeping(self, previous: "ClassGaussians") -> "ClassGaussians":
        """These, and the classes that only `previous` has, as they were last seen (FedProto's rule)."""
        lost_K = ~np.isin(previous.classes_K, self.classes_K)
        classes_K = np.concatenate([self.classes_K, previous.classes_K[lost_K]])
        order = np.argsort(classes_K)
        # A spread without a row per class is pooled over the classes of this round, and stays as it is.
        spread = self.spread if self.spread.ndim < 2 else np.concatenate([self.spread, previous.spread[lost_K]])[order]
        return ClassGaussians(
            classes_K[order],
            np.concatenate([self.count_K, previous.count_K[lost_K]])[order],
            np.concatenate([self.mean_KD, previous.mean_KD[lost_K]])[order],
            spread,
        )

    def to_payload(self) -> dict[str, Arrays]:
        """The kinds `prototypes` and `covariance` of a message."""
        return {
            "prototypes": {"classes": self.classes_K, "count": self.count_K, "mean": self.mean_KD},
            "covariance": {"spread": self.spread},
        }

    @classmethod
    def from_arrays(cls, prototypes: Arrays, covariance: Arrays) -> "ClassGaussians":
        """The inverse of `to_payload`."""
        return cls(
            np.asarray(prototypes["classes"], dtype=np.int64),
            np.asarray(prototypes["count"], dtype=np.int64),
            np.asarray(prototypes["mean"], dtype=np.float32),
            np.asarray(covariance["spread"], dtype=np.float32),
        )
