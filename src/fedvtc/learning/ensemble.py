"""All clients as one ensemble: the mean of their probabilities, and a vote. No client has this model.

Shapes: N test images, C classes.
"""

import numpy as np
from numpy.typing import NDArray


class Ensemble:
    """Adds up the predictions of clients, one client at a time.

    Args:
        labels_N: classes of the test images.
        num_classes: classes C.
    """

    def __init__(self, labels_N: NDArray[np.int64], num_classes: int) -> None:
        self._labels_N = labels_N
        self._sum_NC = np.zeros((len(labels_N), num_classes))
        self._votes_NC = np.zeros((len(labels_N), num_classes), dtype=np.int64)

    def add(self, probabilities_NC: NDArray[np.float32]) -> None:
        """Adds the probabilities of one client."""
        self._sum_NC += probabilities_NC
        self._votes_NC[np.arange(len(self._labels_N)), probabilities_NC.argmax(axis=1)] += 1

    def predictions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the classes (N,) of the highest mean, and of most votes, where the mean decides a tie."""
        most_N1 = self._votes_NC.max(axis=1, keepdims=True)
        tied_NC = np.where(self._votes_NC == most_N1, self._sum_NC, -np.inf)
        return self._sum_NC.argmax(axis=1), tied_NC.argmax(axis=1)

    def record(self) -> dict[str, float]:
        """Returns both accuracies, by the names of `FURTHER_METRICS`."""
        mean, vote = (float((predicted_N == self._labels_N).mean()) for predicted_N in self.predictions())
        return {"test/ensemble/mean": mean, "test/ensemble/vote": vote}
