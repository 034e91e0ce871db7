"""The commands: `fedvtc run | resume | submit | sweep | plan | list | doctor`, their words, and what they do.

Nothing heavy is imported at the top, so that help and a config with a mistake answer at once.
"""

from fedvtc.commands.doctor.command import doctor_parser
from fedvtc.commands.listing.command import list_parser
from fedvtc.commands.plan.command import plan_parser
from fedvtc.commands.run import resume_parser, run_parser
from fedvtc.commands.submit.command import submit_parser
from fedvtc.commands.sweep.command import sweep_parser

PARSERS = {
    "run": run_parser,
    "resume": resume_parser,
    "submit": submit_parser,
    "sweep": sweep_parser,
    "plan": plan_parser,
    "list": list_parser,
    "doctor": doctor_parser,
}
"""How the words of each command are read; `command` of what a parser finds does it, and gives the exit code."""
