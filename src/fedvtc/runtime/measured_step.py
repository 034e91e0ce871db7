"""The costs of a client's step, and the check of the model after the step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedvtc.errors import ClientError
from fedvtc.learning.costs import measured
from fedvtc.learning.peak_memory import gpu_peak_bytes, peak_memory_bytes

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient


@contextmanager
def measured_step(client: "FederatedClient") -> Iterator[dict[str, float]]:
    """Yields a mapping for the costs of a client's step, filled after the block.

    Raises:
        ClientError: the outputs of the model after the step are not finite.
    """
    from fedvtc.learning.client.evaluation import has_finite_outputs

    costs: dict[str, float] = {}
    with measured(costs, "client"):
        yield costs
        # A step's loss belongs to the weights before the step.
        if not has_finite_outputs(client.classifier, client.images):
            what = "the logits of the client's own images are not finite"
            raise ClientError(client.id, client.round, "outputs", what)
    costs["memory/peak_bytes"] = peak_memory_bytes()
    if client.device.type == "cuda" and (peak := gpu_peak_bytes(client.device)) is not None:
        costs["memory/gpu_peak_bytes"] = peak
