"""What `fedvtc plan` prints."""

from fedvtc.planning.plan import make_plan
from fedvtc.planning.tables import print_plan, save_picture

__all__ = ["make_plan", "print_plan", "save_picture"]
