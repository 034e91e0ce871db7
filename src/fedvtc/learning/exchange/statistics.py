"""Feature statistics that merge like a sum: the statistics of a union are the sum of the statistics of its parts.

Each class has a count, a mean and a centred second moment (the scatter). Parts from different clients therefore merge
to the statistics of all features together, to float64 rounding, in any order and any tree.
Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979.

Shape suffixes: B images, K classes held (ascending class ids), D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

Form = Literal["scalar", "client_diagonal", "class_diagonal", "class_full"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Counts, means and scatter of features, by class.

    The scatter is the sum of squared deviations of the features from the mean of their *own class*. The `form` selects
    the part of the scatter that is kept, and its shape:

    * `scalar`, (): summed over classes and features;
    * `client_diagonal`, (D,): one per feature, summed over classes;
    * `class_diagonal`, (K, D): one per class and feature;
    * `class_full`, (K, D, D): sums of outer products, one matrix per class.

    Attributes:
        form: kept part of the scatter.
        classes_K: ascending ids of the classes that are held; classes without an image are left out.
        count_K: images per class, at least 1.
        mean_KD: mean feature per class, the prototypes.
        scatter: centred second moment, shaped by the form.

    Raises:
        ValueError: the shapes do not fit each other and the form, or the classes are not ascending.
    """

    form: Form
    classes_K: IntArray
    count_K: IntArray
    mean_KD: FloatArray
    scatter: FloatArray

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form {self.form!r} is unknown; one of {', '.join(get_args(Form))}")
        if self.mean_KD.ndim != 2:
            raise ValueError(f"mean_KD has {self.mean_KD.ndim} dimensions, not 2")
        num_classes, feature_size = self.mean_KD.shape
        if self.classes_K.shape != (num_classes,) or self.count_K.shape != (num_classes,):
            raise ValueError(
                f"{num_classes} means, but classes of shape {self.classes_K.shape} and counts of {self.count_K.shape}"
            )
        if np.any(np.diff(self.classes_K) <= 0):
            raise ValueError("classes_K must ascend and name no class twice")
        if np.any(self.count_K < 1):
            raise ValueError("count_K must be at least 1: a class without an image is left out")
        expected = _scatter_shape(self.form, num_classes, feature_size)
        if self.scatter.shape != expected:
            raise ValueError(f"scatter of form {self.form} has shape {self.scatter.shape}, not {expected}")

    @classmethod
    def empty(cls, feature_size: int, form: Form) -> Self:
        """Returns the statistics of no image: the neutral element of `merge`."""
        return cls(
            form=form,
            classes_K=np.zeros(0, dtype=np.int64),
            count_K=np.zeros(0, dtype=np.int64),
            mean_KD=np.zeros((0, feature_size)),
            scatter=np.zeros(_scatter_shape(form, 0, feature_size)),
        )

    @classmethod
    def of(cls, features_BD: NDArray[Any], labels_B: NDArray[Any], form: Form) -> Self:
        """Computes the statistics of labelled features in float64, in two passes: means, then deviations.

        Raises:
            ValueError: there is not exactly one integer label per row of features.
        """
        features_BD = np.asarray(features_BD, dtype=np.float64)
        labels_B = np.asarray(labels_B)
        if features_BD.ndim != 2 or labels_B.shape != features_BD.shape[:1]:
            raise ValueError(f"features of shape {features_BD.shape} need one label per row, not {labels_B.shape}")
        if len(labels_B) == 0:
            return cls.empty(features_BD.shape[1], form)
        if not np.issubdtype(labels_B.dtype, np.integer):
            raise ValueError(f"labels must be integers, not {labels_B.dtype}")
        classes_K, count_K = np.unique(labels_B, return_counts=True)
        means, scatters = [], []
        for label in classes_K:
            rows_ND = features_BD[labels_B == label]
            mean_D = rows_ND.mean(axis=0)
            deviations_ND = rows_ND - mean_D
            means.append(mean_D)
            scatters.append(
                deviations_ND.T @ deviations_ND if form == "class_full" else np.square(deviations_ND).sum(axis=0)
            )
        return cls(
            form=form,
            classes_K=classes_K.astype(np.int64),
            count_K=count_K.astype(np.int64),
            mean_KD=np.stack(means),
            scatter=_pool_classes(np.stack(scatters), form),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Mapping[str, NDArray[Any]]], form: Form) -> Self:
        """Builds statistics from the arrays that `to_arrays` returned."""
        prototypes, covariance = arrays["prototypes"], arrays["covariance"]
        return cls(
            form=form,
            classes_K=np.asarray(prototypes["classes"], dtype=np.int64),
            count_K=np.asarray(prototypes["count"], dtype=np.int64),
            mean_KD=np.asarray(prototypes["mean"], dtype=np.float64),
            scatter=np.asarray(covariance["scatter"], dtype=np.float64),
        )

    def to_arrays(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Returns the arrays of a message, by payload kind."""
        return {
            "prototypes": {"classes": self.classes_K, "count": self.count_K, "mean": self.mean_KD},
            "covariance": {"scatter": self.scatter},
        }

    @property
    def feature_size(self) -> int:
        """Number of features D."""
        return int(self.mean_KD.shape[1])

    @property
    def num_images(self) -> int:
        """Number of images of all classes."""
        return int(self.count_K.sum())

    def merge(self, other: Self) -> Self:
        """Computes the statistics of the union of both sets of images.

        Two parts of one class add n_a n_b / (n_a + n_b) * delta delta^T to the scatter, with delta the difference of
        their means (Chan et al. 1979, eq. 2.1b); the form selects the kept part.

        Raises:
            ValueError: forms or feature sizes differ.
        """
        if self.form != other.form or self.feature_size != other.feature_size:
            raise ValueError(
                f"statistics of {self.form} with {self.feature_size} features do not merge with "
                f"{other.form} with {other.feature_size}"
            )
        classes_K = np.union1d(self.classes_K, other.classes_K)
        count_a_K, count_b_K = (_spread(part.count_K, part, classes_K) for part in (self, other))
        mean_a_KD, mean_b_KD = (_spread(part.mean_KD, part, classes_K) for part in (self, other))
        count_K = count_a_K + count_b_K
        share_b_K = count_b_K / count_K
        weight_K = count_a_K * share_b_K
        # A class that one part lacks has a share or weight of 0, so its mean and scatter do not change.
        delta_KD = mean_b_KD - mean_a_KD
        if self.form == "class_full":
            between = np.einsum("k,kd,ke->kde", weight_K, delta_KD, delta_KD)
        else:
            between = weight_K[:, None] * np.square(delta_KD)
        if self.form.startswith("class_"):
            within = _spread(self.scatter, self, classes_K) + _spread(other.scatter, other, classes_K)
        else:
            within = self.scatter + other.scatter
        return type(self)(
            form=self.form,
            classes_K=classes_K,
            count_K=count_K,
            mean_KD=mean_a_KD + share_b_K[:, None] * delta_KD,
            scatter=np.asarray(within + _pool_classes(between, self.form)),
        )

    __add__ = merge

    def std_KD(self, floor: float) -> FloatArray:
        """Returns the standard deviation of each feature around the class mean, (K, D), at least `floor`.

        The scatter is divided by the number of images n (scalar: n * D), not n - 1. A form that pools classes gives
        every class the same row. In the two other forms a class with one image has no scatter, so its row is the floor.
        """
        if self.form == "scalar":
            variance = self.scatter / max(self.num_images * self.feature_size, 1)
        elif self.form == "client_diagonal":
            variance = self.scatter / max(self.num_images, 1)
        elif self.form == "class_diagonal":
            variance = self.scatter / self.count_K[:, None]
        else:
            variance = np.diagonal(self.scatter, axis1=1, axis2=2) / self.count_K[:, None]
        std_KD: FloatArray = np.maximum(np.broadcast_to(np.sqrt(variance), self.mean_KD.shape), floor)
        return std_KD

    def factor_KDD(self, floor: float, prior_count: float) -> FloatArray:
        """Returns lower Cholesky factors of the class covariances, (K, D, D); mean_k + L_k @ normal draws from class k.

        The three other forms give diagonal factors with `std_KD` as diagonal. For `class_full`, the covariance of a
        class of n_k images has the weight n_k / (n_k + prior_count), and the diagonal of the pooled within-class
        covariance has the rest: the fewer images a class has, the more weight all classes together get. Then floor^2 is
        added to the diagonal. The rule is our choice: the posterior mode under a conjugate prior worth `prior_count`
        images. The rule needs no eigenvalues, and the result is invertible even for a class of one image.

        Args:
            floor: smallest standard deviation in any direction, above 0.
            prior_count: weight of the pooled diagonal in images, at least 0.

        Raises:
            ValueError: `floor` or `prior_count` is out of range.
        """
        if floor <= 0 or prior_count < 0:
            raise ValueError(f"floor must be above 0 and prior_count at least 0, not {floor} and {prior_count}")
        identity_DD = np.eye(self.feature_size)
        if self.form != "class_full":
            return self.std_KD(floor)[:, :, None] * identity_DD
        pooled_D = np.diagonal(self.scatter.sum(axis=0)) / max(self.num_images, 1)
        covariance_KDD = (self.scatter + prior_count * np.diag(pooled_D)) / (self.count_K + prior_count)[:, None, None]
        # With huge features, floor^2 is below rounding, and a singular covariance would have no factor.
        return factors_with_ridge(covariance_KDD, floor, 4 * float(np.finfo(np.float64).eps))


def factors_with_ridge(matrices_KDD: FloatArray, floor: float, rounding: float) -> FloatArray:
    """Returns lower Cholesky factors of matrices + r I, (K, D, D).

    The ridge r of a matrix is floor^2, or D * rounding times its largest diagonal entry if that is more: rounding can
    give a singular covariance negative eigenvalues of this size.

    Args:
        matrices_KDD: symmetric matrices, positive semi-definite up to rounding.
        floor: smallest standard deviation in any direction.
        rounding: relative error of the entries.
    """
    size = matrices_KDD.shape[1]
    largest_K = np.diagonal(matrices_KDD, axis1=1, axis2=2).max(axis=1, initial=0.0)
    ridge_K = np.maximum(floor**2, size * rounding * largest_K)
    factor_KDD: FloatArray = np.linalg.cholesky(matrices_KDD + ridge_K[:, None, None] * np.eye(size))
    return factor_KDD


def _scatter_shape(form: Form, num_classes: int, feature_size: int) -> tuple[int, ...]:
    return {
        "scalar": (),
        "client_diagonal": (feature_size,),
        "class_diagonal": (num_classes, feature_size),
        "class_full": (num_classes, feature_size, feature_size),
    }[form]


def _pool_classes(per_class: FloatArray, form: Form) -> FloatArray:
    """Sums scatters per class, (K, D) or (K, D, D), over the dimensions that the form pools."""
    if form == "scalar":
        return np.asarray(per_class.sum())
    if form == "client_diagonal":
        return np.asarray(per_class.sum(axis=0))
    return per_class


def _spread(per_class: NDArray[Any], part: FeatureStatistics, classes_K: IntArray) -> NDArray[Any]:
    """Places the rows of one part into rows of a larger set of classes, with zeros for classes that the part lacks."""
    spread = np.zeros((len(classes_K), *per_class.shape[1:]), dtype=per_class.dtype)
    spread[np.searchsorted(classes_K, part.classes_K)] = per_class
    return spread
