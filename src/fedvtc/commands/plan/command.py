"""`fedvtc plan`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, config_parser, load_config, make_console
from fedvtc.errors import EXIT_OK

PLAN = """\
examples:
  fedvtc plan conf/data/mnist.yaml partition.alpha=0.1 population.num_clients=40
  fedvtc plan conf/data/mnist.yaml --picture partition.png
  fedvtc plan conf/data/mnist.yaml --print-config > mine.yaml
"""


def plan_parser() -> Parser:
    """Parses the words of `fedvtc plan`."""
    about = (
        "Shows what a run would do: its config, who holds what, bytes per round, processes and memory. Trains nothing."
    )
    parser = config_parser("plan", about, PLAN)
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and nothing else")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to put the picture of the partition")
    parser.set_defaults(command=_plan)
    return parser


def _plan(words: argparse.Namespace) -> int:
    from fedvtc.config import to_yaml

    config = load_config(words.words)
    print(to_yaml(config), end="" if words.print_config else "\n", flush=True)
    if words.print_config:
        return EXIT_OK
    from fedvtc.commands import plan as planning

    plan = planning.make_plan(config)
    planning.print_plan(plan, make_console())
    print(f"Picture: {planning.save_picture(plan, words.picture)}")
    return EXIT_OK
