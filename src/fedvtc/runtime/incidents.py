"""Incidents: faults that a run recovers from, printed at once and counted for the record of the round."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fedvtc.learning.metrics import INCIDENTS


class Incidents:
    """Collects incidents from all threads.

    Args:
        tell: prints the text of an incident; called at once, by the thread that reports the incident.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._counts: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def tell(self, text: str) -> None:
        """Prints a text that is not an incident."""
        self._tell(text)

    def add(self, kind: str, text: str) -> None:
        """Prints and counts one incident.

        Args:
            kind: a key of `INCIDENTS`.
            text: one line that names the client or file, the fault, and the reaction.
        """
        assert kind in INCIDENTS
        with self._lock:
            self._texts.append(text)
            self._counts[kind] += 1
            self._totals[kind] += 1
        self._tell(text)

    def take(self) -> dict[str, Any]:
        """Returns the incidents since the last call for a record: `incidents/<kind>` counts, `incidents` texts."""
        with self._lock:
            record: dict[str, Any] = {f"incidents/{kind}": count for kind, count in sorted(self._counts.items())}
            if self._texts:
                record["incidents"] = self._texts
            self._texts, self._counts = [], Counter()
        return record

    @property
    def totals(self) -> dict[str, int]:
        """Number of incidents of this attempt by kind, without the kinds that did not happen."""
        with self._lock:
            return dict(self._totals)
