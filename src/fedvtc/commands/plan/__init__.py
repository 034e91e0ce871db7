"""What `fedvtc plan` prints."""

from fedvtc.commands.plan.plan import make_plan
from fedvtc.commands.plan.printing import print_plan, save_picture

__all__ = ["make_plan", "print_plan", "save_picture"]
