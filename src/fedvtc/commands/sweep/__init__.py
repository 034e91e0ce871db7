"""`fedvtc sweep`: runs many federations from one sweep file, with Ray Tune or as jobs of a cluster.

May hold code of this command only. Ray is imported only when a sweep starts.
"""

from fedvtc.commands.sweep.loading import load_sweep
from fedvtc.commands.sweep.trials import Sweep, Trial

__all__ = ["Sweep", "Trial", "load_sweep"]
