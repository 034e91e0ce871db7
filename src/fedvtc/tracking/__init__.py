"""Trackers: they receive the records of a run while it runs. No training, no command.

The coordinator passes each record to every tracker in turn. The names in a record are those of
`fedvtc.learning.metrics`, plus `round` and `phase`.
"""

from fedvtc.tracking.base import RunInfo as RunInfo
from fedvtc.tracking.base import Tracker as Tracker
