"""What went wrong and was dealt with: told as it happens, and counted for the record of the round."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fedvtc.learning.metrics import INCIDENTS


class Incidents:
    """Takes incidents from any thread.

    Args:
        tell: gets the text of each as it happens.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._counts: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def tell(self, text: str) -> None:
        """Tells what is no incident."""
        self._tell(text)

    def add(self, kind: str, text: str) -> None:
        """Tells and counts one incident.

        Args:
            kind: of `INCIDENTS`.
            text: one line: who, where, and what was done about it.
        """
        assert kind in INCIDENTS
        with self._lock:
            self._texts.append(text)
            self._counts[kind] += 1
            self._totals[kind] += 1
        self._tell(text)

    def take(self) -> dict[str, Any]:
        """What happened since the last call, for a record: `incidents/<kind>` counts, and `incidents` as texts."""
        with self._lock:
            record: dict[str, Any] = {f"incidents/{kind}": count for kind, count in sorted(self._counts.items())}
            if self._texts:
                record["incidents"] = self._texts
            self._texts, self._counts = [], Counter()
        return record

    @property
    def totals(self) -> dict[str, int]:
        """Incidents of this attempt by kind; kinds that did not happen are absent."""
        with self._lock:
            return dict(self._totals)
