"""Where clients live: in this process or in Ray actors. Ray is imported only once it is needed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvtc.runtime.host import task_of
    from fedvtc.runtime.lineage import Lineage
    from fedvtc.runtime.opening import open_pool
    from fedvtc.runtime.pool import InlinePool, Pool
else:
    _MODULES = {"InlinePool": "pool", "Lineage": "lineage", "Pool": "pool", "open_pool": "opening", "task_of": "host"}

    def __getattr__(name):
        # Late, for `fedvtc doctor` visits a cluster without loading PyTorch, which may be what is broken.
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["InlinePool", "Lineage", "Pool", "open_pool", "task_of"]
