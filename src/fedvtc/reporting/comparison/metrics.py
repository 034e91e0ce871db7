"""Numbers of runs as columns of a table: heading, direction, format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.run_numbers import (
    COMPUTING,
    CPU,
    FLOPS,
    RECEIVED,
    SENT,
    TARGET_BYTES,
    TARGET_ROUNDS,
    TARGET_SECONDS,
    WALL_CLOCK,
)
from fedvtc.reporting.tables import human_bytes

SHARES = {name: label for label, name in HEADLINE_METRICS.items()} | {"test/f1/mean": "F1"}
COSTS = {SENT: "up", RECEIVED: "down"}
"""Bytes that all clients together sent and received, over all rounds."""
TIMES = {CPU: "CPU s", FLOPS: "FLOPs", "memory/peak_bytes": "memory", WALL_CLOCK: "seconds"}
"""Measured costs; files of a sweep leave them out, so that a repeated sweep writes equal files."""
TO_TARGET = {TARGET_ROUNDS: "rounds to {}", TARGET_BYTES: "MB to {}"}
"""Numbers up to the first evaluation that reaches the target."""
HEADINGS = SHARES | COSTS | TIMES | {COMPUTING: "client s"} | TO_TARGET | {TARGET_SECONDS: "s to {}"}
"""Headings of metrics by name; other metrics have their name as heading."""


@dataclass(frozen=True)
class Metric:
    """A number of runs as a column.

    Attributes:
        name: the name among the numbers of a run.
        heading: the heading of the column.
        percent: True shows a share times 100.
        digits: digits after the point of shares and losses; None takes 4, in percent 2.
    """

    name: str
    heading: str
    percent: bool = False
    digits: int | None = None

    @property
    def is_share(self) -> bool:
        """True for a metric of an evaluation, in [0, 1]."""
        return self.name.startswith(("test/", "validation/"))

    @property
    def higher_is_better(self) -> bool:
        """True if the highest value is the best."""
        return (self.is_share and self.name != "test/accuracy/std") or self.name == "memorisation/ratio"

    @property
    def shows_spread(self) -> bool:
        """True if a cell shows the standard deviation beside the mean."""
        return self.is_share or self.name.startswith(("loss/", "memorisation/"))

    def text(self, value: float, *, signed: bool = False) -> str:
        """Returns a value as text, with a sign also for positive values if `signed`."""
        sign = "+" if signed else ""
        if self.name == TARGET_BYTES:
            return f"{value / 1e6:{sign}.2f}"
        if self.name.startswith(("bytes/", "memory/")):
            return f"{sign if value >= 0 else ''}{human_bytes(value)}"
        if self.name == TARGET_ROUNDS:
            return f"{value:{sign}.{0 if value.is_integer() else 1}f}"
        if self.name.startswith("flops/"):
            return f"{value:{sign}.2e}"
        if self.name.startswith(("time/", "cpu/")) or self.name == TARGET_SECONDS:
            return f"{value:{sign}.{0 if abs(value) >= 10 else 1}f}"
        shown = value * 100 if self.is_percent else value
        digits = self.digits if self.digits is not None else 2 if self.is_percent else 4
        return f"{shown:{sign}.{digits}f}"

    @property
    def is_percent(self) -> bool:
        """True if the values are shown times 100."""
        return self.percent and self.is_share


def metrics_of(
    names: Sequence[str],
    target: float | None,
    *,
    percent: bool = False,
    digits: int | None = None,
    headings: Mapping[str, str] = MappingProxyType({}),
) -> list[Metric]:
    """Returns the columns of some numbers; `headings` replaces the headings of numbers by name."""
    reached = "the target" if target is None else f"{target:g}"
    texts = {name: HEADINGS.get(name, name).format(reached) for name in names}
    return [Metric(name, headings.get(name, texts[name]), percent, digits) for name in names]


def default_names(target: float | None, *, times: bool) -> list[str]:
    """Returns the names of the columns of a table without a choice of metrics.

    Args:
        target: the target of the sweep; None leaves out its columns.
        times: True adds measured costs.
    """
    names = [*SHARES, *COSTS, *(TO_TARGET if target else ())]
    return names + ([*TIMES, *([TARGET_SECONDS] if target else [])] if times else [])
