"""Conformal sets of labels (RAPS) from logits: temperature, threshold and sets. Pure NumPy.

Source: A. N. Angelopoulos et al., "Uncertainty Sets for Image Classifiers using Conformal Prediction", ICLR 2021
(arXiv 2009.14193).

Shapes: N images, C classes. Ranks of labels begin at 1, the most probable label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LR, _START, _TOLERANCE, _SMALLEST = 0.01, 1.3, 0.01, 0.05

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class LabelSets:
    """A calibrated model's sets of labels: probable labels until their probabilities reach a threshold.

    Attributes:
        temperature: divisor T of logits.
        threshold: tau, the quantile of the calibration scores.
        penalty: cost a of each label beyond `free_labels`.
        free_labels: labels k_reg without penalty.
    """

    temperature: float
    threshold: float
    penalty: float
    free_labels: int

    @classmethod
    def calibrated(
        cls,
        logits_NC: Floats,
        labels_N: NDArray[np.integer],
        uniform_N: Floats,
        *,
        error_rate: float,
        penalty: float,
        free_labels: int,
        batch_size: int,
    ) -> "LabelSets":
        """Calibrates a model on its logits of labelled images.

        Args:
            logits_NC: logits of the calibration images.
            labels_N: true labels.
            uniform_N: draws from U(0, 1), one an image.
            error_rate: alpha; a share 1 - alpha of exchangeable images has its label in the set.
            penalty: cost a of each label beyond `free_labels`.
            free_labels: labels k_reg without penalty.
            batch_size: images in a step of the temperature's descent.
        """
        temperature = fit_temperature(logits_NC, labels_N, batch_size=batch_size)
        probabilities_NC = softmax(logits_NC, temperature)
        scores_N = calibration_scores(probabilities_NC, labels_N, uniform_N, penalty=penalty, free_labels=free_labels)
        threshold = float(np.quantile(scores_N, 1.0 - error_rate, method="higher"))
        return cls(temperature, threshold, penalty, free_labels)

    def of(self, logits_NC: Floats, uniform_N: Floats) -> NDArray[np.bool_]:
        """Returns True for each class in the set of an image (N, C); no set is empty.

        Args:
            logits_NC: logits of the images.
            uniform_N: draws from U(0, 1), which decide whether the last label stays.
        """
        probabilities_NC = softmax(logits_NC, self.temperature)
        order_NC, sorted_NC, sums_NC = _sorted(probabilities_NC)
        costs_C = _costs(probabilities_NC.shape[1], self.penalty, self.free_labels)
        sizes_N = set_sizes(sums_NC + costs_C, self.threshold)
        last_N = sizes_N - 1
        rows_N = np.arange(len(last_N))
        last_probability_N = sorted_NC[rows_N, last_N]
        room_N = self.threshold - (sums_NC[rows_N, last_N] - last_probability_N) - costs_C[last_N]
        # Multiplied and not divided: a probability can be 0.
        sizes_N = np.maximum(sizes_N - (uniform_N * last_probability_N >= room_N), 1)
        ranks_C = np.arange(probabilities_NC.shape[1])
        sets_NC = np.zeros(probabilities_NC.shape, dtype=np.bool_)
        np.put_along_axis(sets_NC, order_NC, ranks_C < sizes_N[:, None], axis=1)
        return sets_NC


def softmax(logits_NC: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Computes probabilities of logits divided by a temperature, in float64."""
    scaled_NC = np.asarray(logits_NC, dtype=np.float64) / temperature
    exponentials_NC: NDArray[np.float64] = np.exp(scaled_NC - scaled_NC.max(axis=1, keepdims=True))
    exponentials_NC /= exponentials_NC.sum(axis=1, keepdims=True)
    return exponentials_NC


def fit_temperature(
    logits_NC: Floats, labels_N: NDArray[np.integer], *, batch_size: int, max_passes: int = 10
) -> float:
    """Returns T that lowers the cross-entropy of z / T, by gradient descent from T = 1.3.

    Ends when a pass moves T by less than 0.01, and keeps T above 0.05.
    """
    temperature = _START
    for _ in range(max_passes):
        before = temperature
        for start in range(0, len(labels_N), batch_size):
            logits, labels = logits_NC[start : start + batch_size], labels_N[start : start + batch_size]
            expected_N = (softmax(logits, temperature) * logits).sum(axis=1)
            # d/dT CE(z / T) = (z_y - sum_c p_c z_c) / T^2
            slope = float((logits[np.arange(len(labels)), labels] - expected_N).mean()) / temperature**2
            temperature = max(temperature - _LR * slope, _SMALLEST)
        if abs(temperature - before) < _TOLERANCE:
            break
    return temperature


def calibration_scores(
    probabilities_NC: Floats, labels_N: NDArray[np.integer], uniform_N: Floats, *, penalty: float, free_labels: int
) -> NDArray[np.float64]:
    """Returns E = sum_{j < r} p_(j) + U p_(r) + a max(0, r - k_reg), with r the rank of the true label."""
    order_NC, sorted_NC, sums_NC = _sorted(probabilities_NC)
    rank_N = (order_NC == labels_N[:, None]).argmax(axis=1)
    rows_N = np.arange(len(labels_N))
    probability_N = sorted_NC[rows_N, rank_N]
    costs_C = _costs(probabilities_NC.shape[1], penalty, free_labels)
    scores_N: NDArray[np.float64] = sums_NC[rows_N, rank_N] - (1.0 - uniform_N) * probability_N + costs_C[rank_N]
    return scores_N


def set_sizes(costed_sums_NC: Floats, threshold: float) -> NDArray[np.int64]:
    """Returns the sizes of sets before the random drop: one label more than have a sum of at most the threshold."""
    sizes_N: NDArray[np.int64] = (costed_sums_NC <= threshold).sum(axis=1) + 1
    return np.minimum(sizes_N, costed_sums_NC.shape[1])


def agreement(private_NC: NDArray[np.bool_], proxy_NC: NDArray[np.bool_]) -> float:
    """Returns the mean trust in the proxy's sets.

    Of an image: |both| / |either| where the private set is not the larger one, else |both| / |proxy's|.
    """
    both_N, either_N = (private_NC & proxy_NC).sum(axis=1), (private_NC | proxy_NC).sum(axis=1)
    proxy_N = proxy_NC.sum(axis=1)
    return float((both_N / np.where(private_NC.sum(axis=1) <= proxy_N, either_N, proxy_N)).mean())


def _sorted(probabilities_NC: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Returns labels by descending probability, their probabilities, and the running sums of these."""
    order_NC = np.argsort(-probabilities_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(probabilities_NC, order_NC, axis=1)
    return order_NC, sorted_NC, np.cumsum(sorted_NC, axis=1)


def _costs(num_classes: int, penalty: float, free_labels: int) -> NDArray[np.float64]:
    """Returns a max(0, j - k_reg) for ranks j = 1 .. C."""
    costs_C: NDArray[np.float64] = penalty * np.maximum(0.0, np.arange(1, num_classes + 1) - float(free_labels))
    return costs_C
