"""Trackers, which receive the records of a run while it runs. No training, no command, no reading of other runs.

The coordinator passes each record to every tracker in turn. A record holds the metrics of `fedvtc.learning.metrics`,
`round` and `phase`.
"""

from fedvtc.tracking.base import RunInfo as RunInfo
from fedvtc.tracking.base import Tracker as Tracker
