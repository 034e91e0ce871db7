"""Costs of a round by phase: seconds, CPU seconds and floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Scalars = dict[str, float]
Result = TypeVar("Result")
"""Result of a step."""


@contextmanager
def measured(scalars: Scalars, name: str) -> Iterator[None]:
    """Adds the seconds of a block to `time/NAME` and its CPU seconds to `cpu/NAME`; an error adds nothing.

    CPU seconds are those of all threads of the process, because PyTorch may compute in several.
    """
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    yield
    _add(scalars, f"time/{name}", time.perf_counter() - began_s)
    _add(scalars, f"cpu/{name}", time.process_time() - began_cpu_s)


class FlopCounts:
    """Floating-point operations of steps, counted at the first step of each kind, and scaled to the rows of the others.

    Matrix products, convolutions and attention count, in the forward and in the backward pass; a multiplication with
    its addition is two operations. PyTorch's counter may change the last bits of a step, and which step is the first
    depends on the process. The first step therefore runs twice, and all that the counted run changed is restored.

    Args:
        device: device of the steps; None is the CPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._gpus = [device] if device is not None and device.type == "cuda" else []
        self._per_row: dict[Hashable, float] = {}

    def counted(
        self,
        scalars: Scalars,
        name: str,
        kind: Hashable,
        num_rows: int,
        step: Callable[[], Result],
        restored: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Result:
        """Returns the result of a step, and adds the operations of the step to `flops/NAME`.

        Args:
            scalars: the measurements of a round.
            name: name of the phase.
            kind: equal for steps that do the same for each row.
            num_rows: rows of the step, such as images of a batch; at least 1.
            step: may draw from PyTorch's generators.
            restored: a context that restores what a step changes beside gradients, such as buffers of modules.
        """
        if kind not in self._per_row:
            with restored():
                self._per_row[kind] = _flops(step, self._gpus) / num_rows
        _add(scalars, f"flops/{name}", self._per_row[kind] * num_rows)
        return step()


def _flops(step: Callable[[], object], gpus: list[torch.device]) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.random.fork_rng(devices=gpus), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def _add(scalars: Scalars, name: str, value: float) -> None:
    scalars[name] = scalars.get(name, 0.0) + value
