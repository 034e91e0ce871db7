"""Imports PyTorch and Lightning in less time."""

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedvtc.runtime.stand_ins import COMPILER, StandIn, stand_in, stand_in_for_the_compiler

SIGNAL = "scipy.signal"


@contextmanager
def fast_imports() -> Iterator[None]:
    """Imports PyTorch and Lightning inside a block in about half of the time.

    In the block, Python's garbage collector is off: these imports create a million objects that stay. The collector
    would examine the objects dozens of times, which is a sixth of the seconds, and free nothing.

    In the block, `scipy.signal` loads only if somebody uses it: Lightning imports TorchMetrics, which imports
    `scipy.signal`, another sixth of the seconds, to mend a name for one metric of speech.

    From the block on, PyTorch's compiler loads only if somebody uses it, see `stand_ins.py`.
    """
    was_on = gc.isenabled()
    gc.disable()
    # TorchMetrics looks for `hamming`, and adds the name where it is missing.
    signal = StandIn(SIGNAL, hamming=None)
    if importlib.util.find_spec("scipy"):
        stand_in(signal)
    stand_in_for_the_compiler()
    try:
        yield
    finally:
        if sys.modules.get(SIGNAL) is signal:
            del sys.modules[SIGNAL]
        # Set by the import of a real submodule; without it, PyTorch searches for the compiler at each use.
        if "torch" in sys.modules and isinstance(compiler := sys.modules.get(COMPILER), StandIn):
            vars(sys.modules["torch"])["_dynamo"] = compiler
        if was_on:
            gc.enable()
