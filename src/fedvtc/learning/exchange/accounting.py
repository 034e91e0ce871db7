"""The privacy loss (epsilon, delta) of the messages of a client, by the accountant of Opacus.

Source: I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019
(arXiv 1908.10530). The accountant adds up the loss over all uses of Gaussian noise on one client's images.

Shape: A orders of Renyi divergence.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_ORDERS_A = tuple(np.concatenate([1 + np.geomspace(1e-3, 1, 40), np.geomspace(2.1, 512, 100)]).tolist())


@dataclass(frozen=True)
class GaussianUse:
    """Uses of Gaussian noise with equal settings.

    Attributes:
        noise_multiplier: standard deviation of the noise over the largest change by one image.
        sample_rate: probability with which an image takes part; 1 for statistics.
        num: number of uses.
    """

    noise_multiplier: float
    sample_rate: float
    num: int


@dataclass(frozen=True)
class PrivacyLoss:
    """The privacy loss of the client with the largest loss.

    Attributes:
        epsilon: epsilon of (epsilon, delta)-differential privacy.
        delta: delta.
        covers_training: True if the loss contains the training of everything that is sent. Without the training,
            epsilon belongs to the statistics of a backbone that does not depend on the image.
    """

    epsilon: float
    delta: float
    covers_training: bool

    def record(self) -> dict[str, float]:
        """Returns the numbers of the record of a round, under a name that says what epsilon covers."""
        return {"privacy/epsilon" if self.covers_training else "privacy/epsilon_statistics": self.epsilon}

    def lines(self) -> list[str]:
        """Returns the lines of a plan."""
        figures = f"epsilon {self.epsilon:.3g} at delta {self.delta:g} for one image of a client"
        if self.covers_training:
            return [f"Privacy: {figures}, of all messages of the client in the whole run."]
        return [
            f"Privacy: {figures}, of the statistics alone, and only if the backbone did not depend on the image. "
            "The whole run has no guarantee: set method.privacy.training_noise above 0."
        ]


def epsilon(uses: Iterable[GaussianUse], delta: float) -> float:
    """Returns the smallest epsilon that the accountant proves for all uses together; infinite without noise."""
    from opacus.accountants.analysis import rdp

    total_A = np.zeros(len(_ORDERS_A))
    for use in uses:
        if use.num > 0:
            total_A = total_A + use.num * _of_one_use(use.noise_multiplier, use.sample_rate)
    if not np.isfinite(total_A).any():
        return float("inf")
    with warnings.catch_warnings():
        # The first or the last order is the best for an epsilon above 1,000 or below 0.01; the bound still holds.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        found, _ = rdp.get_privacy_spent(orders=_ORDERS_A, rdp=total_A, delta=delta)
    return float(found)


@cache
def _of_one_use(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    from opacus.accountants.analysis import rdp

    loss_A = rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(_ORDERS_A))
    return np.asarray(loss_A, dtype=np.float64)
