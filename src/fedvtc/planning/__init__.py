"""What `fedvtc plan` prints."""

from fedvtc.planning.plan import ACTOR_BYTES, Plan, make_plan, nodes_of, pack_clients
from fedvtc.planning.tables import placement_lines, print_plan, save_picture

__all__ = [
    "ACTOR_BYTES",
    "Plan",
    "make_plan",
    "nodes_of",
    "pack_clients",
    "placement_lines",
    "print_plan",
    "save_picture",
]
