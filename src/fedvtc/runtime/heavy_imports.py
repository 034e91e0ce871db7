"""Imports PyTorch and Lightning in less time."""

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SIGNAL = "scipy.signal"


@contextmanager
def fast_imports() -> Iterator[None]:
    """Imports PyTorch and Lightning inside a block in about two thirds of the time.

    In the block, Python's garbage collector is off: these imports create a million objects that stay. The collector
    would examine the objects dozens of times, which is a sixth of the seconds, and free nothing.

    In the block, `scipy.signal` loads only if somebody uses it: Lightning imports TorchMetrics, which imports
    `scipy.signal`, another sixth of the seconds, to mend a name for one metric of speech.
    """
    was_on = gc.isenabled()
    gc.disable()
    stand_in = _SignalStandIn(SIGNAL)
    if SIGNAL not in sys.modules and importlib.util.find_spec("scipy"):
        sys.modules[SIGNAL] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(SIGNAL) is stand_in:
            del sys.modules[SIGNAL]
        if was_on:
            gc.enable()


class _SignalStandIn(ModuleType):
    """Stands in for `scipy.signal`, and imports it at the first use."""

    hamming = None
    """The name that TorchMetrics looks for, and adds where it is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(SIGNAL) is self:
            del sys.modules[SIGNAL]
        return getattr(importlib.import_module(SIGNAL), name)
