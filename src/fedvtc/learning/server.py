"""The server's training steps in one round: keyed like those of a client, measured, on the CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from fedvtc.errors import ServerError
from fedvtc.learning.costs import FlopCounts, Result, measured
from fedvtc.learning.peak_memory import measured_memory
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
        flops: operations of steps that the server has counted in earlier rounds; None counts anew.

    Attributes:
        round: the round.
        scalars: seconds and losses of the round, by metric name; they enter the record of the round.
    """

    is_idle = False
    """True where messages are built for their bytes alone: `fit` takes no step, and values may be zeros."""

    def __init__(self, seed: int, round: int, flops: FlopCounts | None = None) -> None:
        self.round = round
        self.scalars: dict[str, float] = {}
        self._seed, self._phase = seed, ""
        self._flops = flops or FlopCounts()

    def randomness(self, purpose: str) -> AbstractContextManager[None]:
        """Returns a context in which the key (seed, round, server, purpose) seeds PyTorch's draws."""
        from fedvtc.learning.client.loop import keyed_randomness

        return keyed_randomness(self._seed, round=self.round, client=SERVER, purpose=purpose)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Opens a named part of the server's round: keys random draws and measures its costs."""
        self._phase = name
        try:
            part = f"server/{name}"
            with measured(self.scalars, part), measured_memory(self.scalars, part), self.randomness(name):
                yield
        finally:
            self._phase = ""

    def counted(
        self,
        what: str,
        num_rows: int,
        step: Callable[[], Result],
        restored: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Result:
        """Returns the result of a step, which may run twice; counts the step in `flops/server/PHASE`, as `fit` does.

        Args:
            what: tells apart steps of one phase that do different things for a row.
            num_rows: rows of the step, such as images.
            step: computes the result.
            restored: a context that restores what a step changes beside gradients.
        """
        kind = (self._phase, what)
        return self._flops.counted(self.scalars, f"server/{self._phase}", kind, num_rows, step, restored)

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
        kind = f"{type(module).__name__} of {sum(weight.numel() for weight in module.parameters())}"
        learner = Learner(make_fabric(torch.device("cpu")), module, optimizer)
        terms = learner.fit(batches, loss, counted=partial(self.counted, kind, restored=partial(_restored, module)))
        for term, value in terms.items():
            if not math.isfinite(value):
                raise ServerError(self.round, self._phase, f"{term} is {value}")
        if terms:
            self.scalars[f"loss/server/{self._phase}"] = terms["loss"]
        return terms


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Restores weights and buffers at the end of the block: layers such as batch norm change them in a forward pass."""
    before = copy.deepcopy(module.state_dict())
    yield
    module.load_state_dict(before)
