"""The server's training steps in one round: keyed like those of a client, measured, on the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from fedvtc.errors import ServerError
from fedvtc.learning.seeding import SERVER

if TYPE_CHECKING:  # Lightning takes seconds to import, and most methods train nothing on the server.
    import torch
    from torch import Tensor, nn

    from fedvtc.learning.client.loop import Loss


class Server:
    """The tools of a method's server half in one round; nothing here outlives the round.

    What the server trains lives in the state of `server_round`, as arrays; see `fedvtc.learning.models.weights`.

    Args:
        seed: the federation's seed.
        round: the round whose uploads the server merges.

    Attributes:
        round: the round.
        scalars: seconds and losses of the round, by metric name; they enter the record of the round.
    """

    def __init__(self, seed: int, round: int) -> None:
        self.round = round
        self.scalars: dict[str, float] = {}
        self._seed, self._phase = seed, ""

    def randomness(self, purpose: str) -> AbstractContextManager[None]:
        """Returns a context in which the key (seed, round, server, purpose) seeds PyTorch's draws."""
        from fedvtc.learning.client.loop import keyed_randomness

        return keyed_randomness(self._seed, round=self.round, client=SERVER, purpose=purpose)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Opens a named part of the server's round: keys random draws and measures `time/server/NAME`."""
        began_s, self._phase = time.perf_counter(), name
        try:
            with self.randomness(name):
                yield
        finally:
            self._phase = ""
        key = f"time/server/{name}"
        self.scalars[key] = self.scalars.get(key, 0.0) + time.perf_counter() - began_s

    def fit(
        self,
        module: nn.Module,
        batches: Iterable[Sequence[Tensor]],
        loss: Loss | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, float]:
        """Steps a module once per batch, in train mode, inside a `phase`; records `loss/server/NAME`.

        Args:
            module: any module on the CPU.
            batches: sequences of tensors whose first dimension is the rows of a batch.
            loss: computes the loss from the tensors of a batch; None takes the module's `training_step`. Either returns
                a tensor, or a mapping of terms with the key `loss`.
            optimizer: None takes a new one of the module's `configure_optimizers`, if the module has this method.

        Returns:
            Means over rows of all terms; empty without a batch.

        Raises:
            ServerError: a loss is not finite.
            RuntimeError: no phase is open.
            ValueError: there is no optimizer, or neither a `loss` nor a `training_step`.
        """
        import torch

        from fedvtc.learning.client.loop import Learner, make_fabric

        if not self._phase:
            raise RuntimeError(
                "server.fit: no phase is open, so random draws have no key."
                " Call server.fit in `with server.phase(NAME):`."
            )
        terms = Learner(make_fabric(torch.device("cpu")), module, optimizer).fit(batches, loss)
        for term, value in terms.items():
            if not math.isfinite(value):
                raise ServerError(self.round, self._phase, f"{term} is {value}")
        if terms:
            self.scalars[f"loss/server/{self._phase}"] = terms["loss"]
        return terms
