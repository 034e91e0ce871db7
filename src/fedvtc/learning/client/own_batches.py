"""Draws the batches of a client's own images, in an order that the client's random draws give.

Shapes: N images of the client, B images of a batch.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from fedvtc.config.schema import TrainingConfig
from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.data.module import epoch_batches
from fedvtc.learning.data.passes import pass_lengths


class OwnBatches:
    """The part of a client that draws batches of the client's own images, inside a phase.

    Attributes:
        images: the client's own images.
        num_images: their number.
        phase_name: the open phase, which keys random draws; empty outside of a phase.

    Args:
        images: the client's own images.
        training: the keys that set batch size and length of a round.
    """

    def __init__(self, images: OwnImages, training: TrainingConfig) -> None:
        self.images, self.num_images, self.phase_name = images, len(images), ""
        self._training = training

    def passes(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """Yields the passes of a round, each as batches of the client's own images, augmented, and labels.

        `training.epochs` or `training.steps` is the length. A pass is drawn as it is read, in the open `phase`.
        """
        return map(self.images.batches, self.index_passes())

    def index_passes(self, num_images: int | None = None) -> Iterator[Iterator[Tensor]]:
        """Yields the passes of a round as `passes` does, each as batches of indices.

        Args:
            num_images: the indices are those below this number; None takes all of the client's own images.
        """
        num_images = num_images or self.num_images
        for num_batches in pass_lengths(num_images, self._training):
            yield self._shuffled(num_images, self._training.batch_size, num_batches)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields one whole pass of the client's own images, augmented, and labels; the open `phase` keys the order.

        Args:
            batch_size: None takes `training.batch_size`.

        Raises:
            RuntimeError: no phase is open.
        """
        return self.images.batches(self.index_batches(batch_size or self._training.batch_size))

    def index_batches(self, batch_size: int) -> Iterator[Tensor]:
        """Yields one whole pass of indices of the client's own images; the open `phase` keys the order."""
        self._open_phase("batches")
        return self._shuffled(self.num_images, batch_size)

    def _shuffled(self, num_images: int, batch_size: int, num_batches: int | None = None) -> Iterator[Tensor]:
        """Yields the first batches of a pass, by default all."""
        # Checked at the first batch: a pass may be asked for before the phase in which the pass is read.
        self._open_phase("batches")
        yield from islice(epoch_batches(num_images, batch_size, torch.default_generator), num_batches)

    def _open_phase(self, step: str) -> str:
        """Returns the name of the open phase.

        Raises:
            RuntimeError: no phase is open.
        """
        if not self.phase_name:
            raise RuntimeError(
                f"client.{step}: no phase is open, so random draws have no key."
                f" Call client.{step} in `with client.phase(NAME):`."
            )
        return self.phase_name
