"""`fedvtc plan`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, config_parser, load_config, make_console
from fedvtc.errors import EXIT_OK

ABOUT = """\
Shows the images of each client, the size of the models, bytes per round, actors, memory and disk space. Trains
nothing."""

EXAMPLES = """\
examples:
  fedvtc plan conf/data/mnist.yaml partition.alpha=0.1 population.num_clients=40
  fedvtc plan conf/data/mnist.yaml --picture partition.png
  fedvtc plan conf/data/mnist.yaml --print-config > mine.yaml
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc plan`."""
    parser = config_parser("plan", ABOUT, EXAMPLES)
    parser.add_argument("--print-config", action="store_true", help="print the config as YAML and nothing else")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="also write a picture of the partition to this file"
    )
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc plan`; returns the exit code.

    Raises:
        UserError: the config, the data or the cluster has a problem, or the picture cannot be written.
    """
    config = load_config(arguments.words, imports=not arguments.print_config)
    if arguments.print_config:
        from fedvtc.config import to_yaml

        print(to_yaml(config), end="", flush=True)
        return EXIT_OK
    # After the config is checked: these load PyTorch.
    from fedvtc.commands.plan.plan import make_plan
    from fedvtc.commands.plan.printing import print_plan, save_picture

    plan = make_plan(config)
    print_plan(plan, make_console())
    if arguments.picture:
        save_picture(plan, arguments.picture)
        print(f"Picture: {arguments.picture}")
    return EXIT_OK
