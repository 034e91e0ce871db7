"""Where clients live: in this process or in Ray actors. Only this package imports Ray, and only once it is needed."""

from fedvtc.runtime.host import task_of
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.runtime.pool import InlinePool, Pool

__all__ = ["InlinePool", "Lineage", "Pool", "open_pool", "task_of"]
