"""Many federations from one file: a grid, random draws or a list over the keys of a config, and tables over seeds.

Ray is imported only once a sweep is run.
"""

from fedvtc.commands.sweep.definition import load_sweep
from fedvtc.commands.sweep.trials import Sweep, Trial

__all__ = ["Sweep", "Trial", "load_sweep"]
